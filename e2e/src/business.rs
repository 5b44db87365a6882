//! Businesses, their staff and their conversations.

use anyhow::Result;
use chat_shared::{
    ids::{BusinessId, ConversationId},
    wire::{Conversation, StaffRole},
};
use serde_json::json;

use crate::{Person, TestFleet, fleet::until_heard};

impl TestFleet {
    /// A new business, with the staff that kaha-main-v3 gives to a gateway.
    pub async fn business(&self, staff: &[(&Person, StaffRole)]) -> Result<BusinessId> {
        let business_id = BusinessId::random();
        let staff: Vec<_> = staff.iter().map(|(person, role)| (person.id.as_uuid(), *role)).collect();
        let url = self.gateway(0).internal_url();
        let push = || self.kaha().push_staff(&url, business_id.as_uuid(), 1, &staff);
        until_heard("a staff list", push).await?;
        Ok(business_id)
    }

    /// The conversation of a customer with a business.
    pub async fn business_conversation(&self, customer: &Person, business_id: BusinessId) -> Result<ConversationId> {
        let body = json!({ "kind": "business", "business_id": business_id });
        let made: Conversation = self.api(customer, 0).post("conversations", &body).await?.ok()?;
        Ok(made.conversation_id)
    }
}
