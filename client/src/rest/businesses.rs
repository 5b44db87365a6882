//! REST calls of business conversations: those of customers, and those of the staff.

use chat_shared::{
    ids::{BusinessId, ConversationId, UserId},
    position::Seq,
    wire::{
        Assignment, AssignmentList, BusinessAvailability, BusinessConversationPage, BusinessSettings, CaseState,
        Conversation, CreateConversation, ResolveCase, SetAgent, SetStatus, StaffedBusiness, StaffedBusinessList,
    },
};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::{Call, Rest, id, page_query, read};
use crate::error::RestError;

/// The case that was claimed.
#[derive(Deserialize)]
struct Claimed {
    conversation_id: ConversationId,
}

/// Calls of business conversations. [`Rest::business_conversation`] and [`Rest::availability`] are for customers, the others are for the staff of a business;
/// to other users they answer [`ErrorCode::NotFound`](crate::wire::ErrorCode::NotFound).
///
/// ```no_run
/// # use chat_client::{Client, HistoryRange, ids::BusinessId, wire::{SetStatus, StaffStatus}};
/// # async fn work(client: &Client, business_id: BusinessId) -> Result<(), Box<dyn std::error::Error>> {
/// let rest = client.rest();
/// rest.set_status(business_id, &SetStatus { status: StaffStatus::Available, until: None, gives_back: false }).await?;
/// while let Some(conversation_id) = rest.claim(business_id).await? {
///     let page = rest.history(conversation_id, HistoryRange::Newest, None).await?;
///     client.send(conversation_id, "Good morning, how can I help?").await?;
///     rest.resolve(conversation_id, page.last_seq).await?;
/// }
/// # Ok(())
/// # }
/// ```
impl Rest {
    /// The user's own conversation with a business. It is made if it does not exist yet, and its first case opens.
    pub async fn business_conversation(&self, business_id: BusinessId) -> Result<Conversation, RestError> {
        self.create_conversation(&CreateConversation::Business { business_id }).await
    }

    /// Whether a business answers now; at most five seconds old.
    pub async fn availability(&self, business_id: BusinessId) -> Result<BusinessAvailability, RestError> {
        self.get(&["businesses", &of(business_id), "availability"], &[]).await
    }

    /// The businesses whose staff the user belongs to, with the user's role, status and number of cases in each.
    pub async fn businesses(&self) -> Result<Vec<StaffedBusiness>, RestError> {
        Ok(self.get::<StaffedBusinessList>(&["businesses"], &[]).await?.businesses)
    }

    /// A page of the inbox of a business: the conversations whose cases are in a state, of one agent if `agent_id` is given.
    pub async fn business_inbox(
        &self,
        business_id: BusinessId,
        state: CaseState,
        agent_id: Option<UserId>,
        limit: Option<usize>,
        cursor: Option<&str>,
    ) -> Result<BusinessConversationPage, RestError> {
        let state = ("state", state.as_str().to_owned());
        let agent = agent_id.map(|agent_id| ("agent", agent_id.as_uuid().to_string()));
        let query: Vec<_> = [state].into_iter().chain(agent).chain(page_query(limit, cursor)).collect();
        self.get(&["businesses", &of(business_id), "conversations"], &query).await
    }

    /// Sets whether the router gives the user cases of the business.
    pub async fn set_status(&self, business_id: BusinessId, status: &SetStatus) -> Result<(), RestError> {
        self.say(Method::PUT, &["businesses", &of(business_id), "status"], status).await
    }

    /// Takes the case that has waited longest, and returns its conversation; none if no case waits. It is not repeated: if no
    /// gateway answers, the user may have a case.
    pub async fn claim(&self, business_id: BusinessId) -> Result<Option<ConversationId>, RestError> {
        let path = &["businesses", &of(business_id), "claim"];
        let call = Call::<()> { method: Method::POST, path, query: &[], body: None, is_repeatable: false };
        match self.call(&call).await? {
            (StatusCode::NO_CONTENT, _) => Ok(None),
            (status, bytes) => Ok(Some(read::<Claimed>(status, &bytes)?.conversation_id)),
        }
    }

    /// Gives a case to an agent: the user claims it, or hands it to another agent. The decision is based on the `version` of the
    /// conversation.
    pub async fn set_agent(&self, conversation_id: ConversationId, agent: &SetAgent) -> Result<(), RestError> {
        self.say(Method::PUT, &["conversations", &id(conversation_id), "agent"], agent).await
    }

    /// Puts a case back in the queue. An attempt without an answer is repeated, so
    /// [`ErrorCode::NotFound`](crate::wire::ErrorCode::NotFound) may mean that the first one has put it back.
    pub async fn give_back(&self, conversation_id: ConversationId) -> Result<(), RestError> {
        self.delete(&["conversations", &id(conversation_id), "agent"]).await
    }

    /// Confirms that the user answers a case soon: the time for later answers counts from now on, instead of that for the first
    /// one.
    pub async fn accept(&self, conversation_id: ConversationId) -> Result<(), RestError> {
        self.post(&["conversations", &id(conversation_id), "accept"]).await
    }

    /// Resolves a case. `seq` is the last message that the user has seen, zero if there is none; a later message of the customer
    /// opens the next case. An attempt without an answer is repeated, so
    /// [`ErrorCode::NotFound`](crate::wire::ErrorCode::NotFound) may mean that the first one has resolved it.
    pub async fn resolve(&self, conversation_id: ConversationId, seq: Seq) -> Result<(), RestError> {
        self.say(Method::POST, &["conversations", &id(conversation_id), "resolve"], &ResolveCase { seq }).await
    }

    /// Opens the next case of a conversation whose case is resolved, and assigns it to the user.
    pub async fn reopen(&self, conversation_id: ConversationId) -> Result<(), RestError> {
        self.post(&["conversations", &id(conversation_id), "reopen"]).await
    }

    /// The assignments of the cases of a conversation, the newest first: at most 100, of an agent its own ones.
    pub async fn assignments(&self, conversation_id: ConversationId) -> Result<Vec<Assignment>, RestError> {
        let path = &["conversations", &id(conversation_id), "assignments"];
        Ok(self.get::<AssignmentList>(path, &[]).await?.assignments)
    }

    /// The settings of a business, for its admins.
    pub async fn business_settings(&self, business_id: BusinessId) -> Result<BusinessSettings, RestError> {
        self.get(&["businesses", &of(business_id), "settings"], &[]).await
    }

    /// Replaces the settings of a business, for its admins, and returns them with their new version. `settings_version` is the
    /// version that the change is based on. It is not repeated: if no gateway answers, the settings may have been replaced.
    pub async fn set_business_settings(
        &self,
        business_id: BusinessId,
        settings: &BusinessSettings,
    ) -> Result<BusinessSettings, RestError> {
        let path = &["businesses", &of(business_id), "settings"];
        self.json(Call { method: Method::PUT, path, query: &[], body: Some(settings), is_repeatable: false }).await
    }

    /// A repeatable call without a body, whose answer has none.
    async fn post(&self, path: &[&str]) -> Result<(), RestError> {
        let call = Call::<()> { method: Method::POST, path, query: &[], body: None, is_repeatable: true };
        self.call(&call).await.map(drop)
    }
}

fn of(business_id: BusinessId) -> String {
    business_id.as_uuid().to_string()
}
