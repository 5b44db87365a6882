//! Stand-in for kaha-main-v3, which owns users, their sign-in, their names and avatars, and the staff of businesses.
//!
//! It signs tokens as the real one does, so the gateway checks real signatures; it answers `POST /api/batch/profiles`
//! and `POST /api/batch/staff`, and refuses there what the real one refuses; it tells the chat what the real one tells. It can be told to fail,
//! and keeps what was asked. It must never be reachable from outside this machine.

mod batch;
mod behaviour;
mod business;
mod by_hand;
mod caller;
mod calls;
mod keys;
mod notice;
mod people;
mod profiles;
mod service_tokens;
mod sign_in;
mod staff;
#[cfg(test)]
mod tests;
mod tokens;

use std::{
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};

use anyhow::Result;
use chat_shared::wire::StaffRole;
use uuid::Uuid;

use self::{batch::Api, caller::CallerKeys, notice::Notice};
pub use self::{
    batch::{IDS_MAX, PATH as PROFILES_PATH, STAFF_PATH},
    behaviour::{Behaviour, Fault},
    business::{Business, StaffMember},
    caller::{CALLER_AUDIENCE, CALLER_ISSUER},
    calls::{Call, Calls, Complaint},
    notice::{CHANGED_SUBJECT, CLOSE_PATH, INVALIDATE_PATH, announce_profiles, staff_path},
    people::{People, Person},
    profiles::{PROFILE_MARK, Profile, Profiles},
    service_tokens::{INTERNAL_AUDIENCE, SCOPE_BUSINESSES, SCOPE_CLOSE, SCOPE_EXPORT, SCOPE_INVALIDATE, ServiceTokens},
    staff::{Member, StaffList, StaffLists},
    tokens::{AUDIENCE, ISSUER, TOKEN_TTL, Tokens},
};
use crate::stand_in::{
    lock,
    server::{self, Protocol, Server},
};

/// Where it listens on 127.0.0.1; 0 is any free port.
#[derive(Debug, Clone, Copy, Default)]
pub struct KahaPorts {
    /// Sign-in and public keys.
    pub accounts: u16,
    /// Profiles and staff lists, which can be down by themselves.
    pub api: u16,
}

/// The running stand-in. Stops when dropped.
#[derive(Debug)]
pub struct Kaha {
    accounts: Arc<Accounts>,
    api: Arc<Api>,
    accounts_server: Server,
    api_server: Server,
}

/// Who there is, and the tokens that are made for them.
#[derive(Debug)]
struct Accounts {
    tokens: Tokens,
    service_tokens: ServiceTokens,
    people: People,
    profiles: Arc<Profiles>,
    staff: Arc<StaffLists>,
    /// Internal addresses of the gateways.
    gateways: OnceLock<Vec<String>>,
}

impl Kaha {
    /// Starts it with its key and its people kept in `directory`. Whoever asks for profiles or staff has to have one of the
    /// private keys in the PEM files `caller_keys`.
    pub async fn start(directory: &Path, ports: KahaPorts, caller_keys: &[&Path]) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let people = People::kept_in(directory)?;
        let profiles = Arc::new(Profiles::of(&people));
        let staff = Arc::new(StaffLists::default());
        let accounts = Arc::new(Accounts {
            tokens: Tokens::kept_in(directory)?,
            service_tokens: ServiceTokens::generate()?,
            people,
            profiles: Arc::clone(&profiles),
            staff: Arc::clone(&staff),
            gateways: OnceLock::new(),
        });
        let api = Arc::new(Api {
            callers: CallerKeys::of_private_keys(caller_keys)?,
            profiles,
            staff,
            calls: Arc::default(),
            staff_calls: Arc::default(),
            behaviour: Mutex::default(),
        });
        let accounts_router = sign_in::router(Arc::clone(&accounts)).merge(by_hand::router(Arc::clone(&accounts)));
        let api_router = batch::router(Arc::clone(&api));
        let accounts_listener = server::bind(ports.accounts).await?;
        let api_listener = server::bind(ports.api).await?;
        Ok(Self {
            accounts_server: Server::start(accounts_listener, Protocol::Http1, move || accounts_router.clone())?,
            api_server: Server::start(api_listener, Protocol::Http1, move || api_router.clone())?,
            accounts,
            api,
        })
    }

    /// Base of sign-in and of what can be done by hand.
    pub fn url(&self) -> String {
        self.accounts_server.url()
    }

    /// Base of its API, where profiles and staff lists are.
    pub fn api_url(&self) -> String {
        self.api_server.url()
    }

    /// Where the public key of users' tokens is.
    pub fn jwks_url(&self) -> String {
        format!("{}/.well-known/jwks.json", self.url())
    }

    /// Where the public keys of its own service tokens are.
    pub fn service_jwks_url(&self) -> String {
        format!("{}/.well-known/service-jwks.json", self.url())
    }

    /// Mints users' tokens, good and bad.
    pub fn tokens(&self) -> &Tokens {
        &self.accounts.tokens
    }

    /// Mints tokens for the chat's internal endpoints, good and bad.
    pub fn service_tokens(&self) -> &ServiceTokens {
        &self.accounts.service_tokens
    }

    /// The readable people, at least eight; always the same in one directory.
    pub fn people(&self) -> &[Person] {
        self.accounts.people.private()
    }

    /// The business; always the same in one directory. Gateways don't know it before [`Self::push_business`].
    pub fn business(&self) -> &Business {
        self.accounts.people.business()
    }

    /// Names and avatars. Changing one tells nobody.
    pub fn profiles(&self) -> &Profiles {
        &self.accounts.profiles
    }

    /// The staff of businesses. Changing a list pushes nothing, as if its push was lost.
    pub fn staff(&self) -> &StaffLists {
        &self.accounts.staff
    }

    /// The calls for profiles, and complaints about all calls.
    pub fn calls(&self) -> &Calls {
        &self.api.calls
    }

    /// The calls for staff lists.
    pub fn staff_calls(&self) -> &Calls {
        &self.api.staff_calls
    }

    /// How its API acts from now on. Sign-in and public keys go on as ever.
    pub fn behave(&self, behaviour: Behaviour) {
        let is_down = behaviour == Behaviour::Down;
        *lock(&self.api.behaviour) = behaviour;
        self.api_server.set_down(is_down);
    }

    /// Tells it where gateways are called by services, for what is done by hand. The first time counts.
    pub fn know_gateways(&self, internal_urls: Vec<String>) {
        _ = self.accounts.gateways.set(internal_urls);
    }

    /// Tells one gateway, at its internal address, that these profiles have changed.
    ///
    /// # Errors
    /// If it doesn't answer with 204.
    pub async fn invalidate_profiles(&self, internal_url: &str, users: &[Uuid], businesses: &[Uuid]) -> Result<()> {
        Notice::profiles_changed(users, businesses).tell(self.service_tokens(), internal_url).await
    }

    /// Tells one gateway, at its internal address, that a user logged out: from the login `sid`, or everywhere.
    ///
    /// # Errors
    /// If it doesn't answer with 204.
    pub async fn close_sessions(&self, internal_url: &str, user_id: Uuid, sid: Option<Uuid>) -> Result<()> {
        Notice::logged_out(user_id, sid).tell(self.service_tokens(), internal_url).await
    }

    /// Gives the staff of a business, as of a version, to one gateway, at its internal address. It is answered with from now on
    /// when staff is asked for, unless it repeats an old push.
    ///
    /// # Errors
    /// If it doesn't answer with 204.
    pub async fn push_staff(
        &self,
        internal_url: &str,
        business_id: Uuid,
        version: u64,
        staff: &[(Uuid, StaffRole)],
    ) -> Result<()> {
        self.staff().advance(business_id, version, staff);
        Notice::staff(business_id, version, staff).tell(self.service_tokens(), internal_url).await
    }

    /// Gives the staff of its business, as version 1, to the first gateway that takes it. A newer list that was pushed by hand
    /// stays in force.
    ///
    /// # Errors
    /// If none takes it.
    pub async fn push_business(&self) -> Result<()> {
        let business = self.business();
        let staff: Vec<_> = business.staff.iter().map(|member| (member.person.id, member.role)).collect();
        self.staff().advance(business.id, 1, &staff);
        let notice = Notice::staff(business.id, 1, &staff).unless_newer();
        by_hand::tell_some_gateway(&self.accounts, &notice).await
    }
}
