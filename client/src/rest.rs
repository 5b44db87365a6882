//! REST calls: one gateway after the other until one answers.

mod businesses;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chat_shared::{
    ids::{BusinessId, ConversationId, DeviceId, MessageId, UserId},
    position::Seq,
    wire::{
        Accepted, AddParticipants, Block, BlockList, Conversation, ConversationPage, CreateConversation, Device,
        DeviceList, ErrorBody, HistoryPage, MarkReadBody, Mute, Presence, PresenceList, ProfileList, RegisterDevice,
        SendMessageBody, Ticket, UnreadTotal,
    },
};
use reqwest::{Method, StatusCode, Url, header::RETRY_AFTER};
use serde::{Serialize, de::DeserializeOwned};

use crate::{error::RestError, limits::REST_WAIT_MAX, token::Tokens};

/// The REST interface of the gateways. Clones share one connection pool.
#[derive(Debug, Clone)]
pub struct Rest {
    pub(crate) http: reqwest::Client,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) gateways: Arc<Gateways>,
}

/// The gateways, and the one in use.
#[derive(Debug)]
pub(crate) struct Gateways {
    urls: Vec<Url>,
    current: AtomicUsize,
}

/// Which part of a conversation's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryRange {
    /// The last messages.
    Newest,
    /// The last ones with a smaller number.
    Before(Seq),
    /// The first ones with a larger number.
    After(Seq),
}

/// One call, before it is given to a gateway.
struct Call<'a, B> {
    method: Method,
    path: &'a [&'a str],
    query: &'a [(&'a str, String)],
    body: Option<&'a B>,
    /// Whether carrying it out twice is the same as once.
    is_repeatable: bool,
}

impl Gateways {
    pub(crate) fn new(urls: Vec<Url>) -> Self {
        Self { urls, current: AtomicUsize::new(0) }
    }

    pub(crate) fn current(&self) -> &Url {
        &self.urls[self.current.load(Ordering::Relaxed) % self.urls.len()]
    }

    /// Turns to the gateway after the current one.
    pub(crate) fn turn(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them, the current one first.
    fn in_turn(&self) -> impl Iterator<Item = &Url> {
        let current = self.current.load(Ordering::Relaxed) % self.urls.len();
        self.urls[current..].iter().chain(&self.urls[..current])
    }
}

impl Rest {
    /// Makes a conversation, or gives the existing one with that user or business. If no gateway answers, a
    /// group may have been made.
    pub async fn create_conversation(&self, create: &CreateConversation) -> Result<Conversation, RestError> {
        let is_repeatable = !matches!(create, CreateConversation::Group { .. });
        let path = &["conversations"];
        self.json(Call { method: Method::POST, path, query: &[], body: Some(create), is_repeatable }).await
    }

    /// The direct conversation with another user.
    pub async fn create_direct(&self, user_id: UserId) -> Result<Conversation, RestError> {
        self.create_conversation(&CreateConversation::Direct { user_id }).await
    }

    /// A new group with others.
    pub async fn create_group(&self, user_ids: impl IntoIterator<Item = UserId>) -> Result<Conversation, RestError> {
        self.create_conversation(&CreateConversation::Group { user_ids: user_ids.into_iter().collect() }).await
    }

    /// A page of the user's conversations, latest activity first.
    pub async fn list_conversations(
        &self,
        limit: Option<usize>,
        cursor: Option<&str>,
    ) -> Result<ConversationPage, RestError> {
        self.get(&["conversations"], &page_query(limit, cursor).collect::<Vec<_>>()).await
    }

    /// One conversation.
    pub async fn conversation(&self, conversation_id: ConversationId) -> Result<Conversation, RestError> {
        self.get(&["conversations", &id(conversation_id)], &[]).await
    }

    /// Adds users to a group; only its owner may.
    pub async fn add_participants(
        &self,
        conversation_id: ConversationId,
        user_ids: impl IntoIterator<Item = UserId>,
    ) -> Result<Conversation, RestError> {
        let body = AddParticipants { user_ids: user_ids.into_iter().collect() };
        let path = &["conversations", &id(conversation_id), "participants"];
        self.json(Call { method: Method::POST, path, query: &[], body: Some(&body), is_repeatable: true }).await
    }

    /// Removes a user from a group (its owner), or leaves it (everybody, themself). An attempt without an answer is repeated,
    /// so [`ErrorCode::NotFound`](crate::wire::ErrorCode::NotFound) may mean that the first one has removed them.
    pub async fn remove_participant(&self, conversation_id: ConversationId, user_id: UserId) -> Result<(), RestError> {
        self.delete(&["conversations", &id(conversation_id), "participants", &user_id.as_uuid().to_string()]).await
    }

    /// A page of history, in ascending `seq`.
    pub async fn history(
        &self,
        conversation_id: ConversationId,
        range: HistoryRange,
        limit: Option<usize>,
    ) -> Result<HistoryPage, RestError> {
        let range = match range {
            HistoryRange::Newest => None,
            HistoryRange::Before(seq) => Some(("before", seq.0.to_string())),
            HistoryRange::After(seq) => Some(("after", seq.0.to_string())),
        };
        let limit = limit.map(|limit| ("limit", limit.to_string()));
        let query: Vec<_> = range.into_iter().chain(limit).collect();
        self.get(&["conversations", &id(conversation_id), "messages"], &query).await
    }

    /// Sends a message by REST, once. [`Client::send`](crate::Client::send) repeats by itself.
    pub async fn send_message(
        &self,
        conversation_id: ConversationId,
        message: &SendMessageBody,
    ) -> Result<Accepted, RestError> {
        let path = &["conversations", &id(conversation_id), "messages"];
        self.json(Call { method: Method::POST, path, query: &[], body: Some(message), is_repeatable: false }).await
    }

    /// Says that the user has read a conversation up to a message; its number, if it is known, spares the gateway a search.
    /// [`Client::mark_read`](crate::Client::mark_read) repeats and merges by itself.
    pub async fn mark_read(
        &self,
        conversation_id: ConversationId,
        message_id: MessageId,
        seq: Option<Seq>,
    ) -> Result<(), RestError> {
        let path = &["conversations", &id(conversation_id), "read"];
        self.say(Method::POST, path, &MarkReadBody { message_id, seq }).await
    }

    /// What the user has not read, over all conversations, as far as it has been stored.
    pub async fn unread_total(&self) -> Result<UnreadTotal, RestError> {
        self.get(&["unread"], &[]).await
    }

    /// Lets a conversation notify the user no more, until a time or for good. Its messages are delivered and count as unread.
    pub async fn mute(&self, conversation_id: ConversationId, mute: Mute) -> Result<(), RestError> {
        self.say(Method::PUT, &["conversations", &id(conversation_id), "mute"], &mute).await
    }

    /// Lets a conversation notify the user again.
    pub async fn unmute(&self, conversation_id: ConversationId) -> Result<(), RestError> {
        self.delete(&["conversations", &id(conversation_id), "mute"]).await
    }

    /// How these users are now: at most 100, each in some conversation with the user.
    pub async fn presence(&self, user_ids: &[UserId]) -> Result<Vec<Presence>, RestError> {
        let list: PresenceList =
            self.get(&["presence"], &[("user_ids", listed(user_ids.iter().map(|id| id.as_uuid())))]).await?;
        Ok(list.users)
    }

    /// What users and businesses are called and look like: at most 100 together. Those who take part in a conversation come
    /// with it.
    pub async fn profiles(&self, user_ids: &[UserId], business_ids: &[BusinessId]) -> Result<ProfileList, RestError> {
        let user_ids = ("user_ids", listed(user_ids.iter().map(|id| id.as_uuid())));
        let business_ids = ("business_ids", listed(business_ids.iter().map(|id| id.as_uuid())));
        let named = [user_ids, business_ids].into_iter().filter(|(_, ids)| !ids.is_empty());
        self.get(&["profiles"], &named.collect::<Vec<_>>()).await
    }

    /// Blocks a user: no direct messages either way, no notification of them, no presence. Groups go on.
    pub async fn block(&self, user_id: UserId) -> Result<(), RestError> {
        let path = &["blocks", &user_id.as_uuid().to_string()];
        let call = Call::<()> { method: Method::PUT, path, query: &[], body: None, is_repeatable: true };
        self.call(&call).await.map(drop)
    }

    /// Blocks a user no longer.
    pub async fn unblock(&self, user_id: UserId) -> Result<(), RestError> {
        self.delete(&["blocks", &user_id.as_uuid().to_string()]).await
    }

    /// Whom the user has blocked, the latest first.
    pub async fn blocks(&self) -> Result<Vec<Block>, RestError> {
        Ok(self.get::<BlockList>(&["blocks"], &[]).await?.blocks)
    }

    /// A ticket with which somebody who can set neither a header nor a subprotocol opens one WebSocket.
    pub async fn ticket(&self) -> Result<Ticket, RestError> {
        let path = &["tickets"];
        self.json(Call::<()> { method: Method::POST, path, query: &[], body: None, is_repeatable: true }).await
    }

    /// Registers a device for notifications, or changes its registration. Repeat it when its platform gives it another token.
    pub async fn register_device(&self, device_id: DeviceId, device: &RegisterDevice) -> Result<Device, RestError> {
        let path = &["devices", &device_id.as_uuid().to_string()];
        self.json(Call { method: Method::PUT, path, query: &[], body: Some(device), is_repeatable: true }).await
    }

    /// The user's devices that are registered for notifications.
    pub async fn devices(&self) -> Result<Vec<Device>, RestError> {
        Ok(self.get::<DeviceList>(&["devices"], &[]).await?.devices)
    }

    /// Ends a device's notifications, for instance before the user logs out there.
    pub async fn remove_device(&self, device_id: DeviceId) -> Result<(), RestError> {
        self.delete(&["devices", &device_id.as_uuid().to_string()]).await
    }

    async fn delete(&self, path: &[&str]) -> Result<(), RestError> {
        let call = Call::<()> { method: Method::DELETE, path, query: &[], body: None, is_repeatable: true };
        self.call(&call).await.map(drop)
    }

    /// A call whose answer has no body.
    async fn say<B: Serialize + Sync>(&self, method: Method, path: &[&str], body: &B) -> Result<(), RestError> {
        let call = Call { method, path, query: &[], body: Some(body), is_repeatable: true };
        self.call(&call).await.map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, RestError> {
        self.json(Call::<()> { method: Method::GET, path, query, body: None, is_repeatable: true }).await
    }

    async fn json<B: Serialize + Sync, T: DeserializeOwned>(&self, call: Call<'_, B>) -> Result<T, RestError> {
        let (status, bytes) = self.call(&call).await?;
        read(status, &bytes)
    }

    /// Makes the call, with a fresh token if the one in use is refused.
    async fn call<B: Serialize + Sync>(&self, call: &Call<'_, B>) -> Result<(StatusCode, Vec<u8>), RestError> {
        let token = self.tokens.current().await?;
        match self.call_in_turn(call, &token).await {
            Err(RestError::Refused { status: 401, .. }) if self.tokens.is_renewable() => {
                self.call_in_turn(call, &self.tokens.renewed(&token).await?).await
            }
            outcome => outcome,
        }
    }

    /// Makes the call at one gateway after the other, until one answers. A call that can't be repeated goes
    /// to the next gateway only if it never reached the one before.
    async fn call_in_turn<B: Serialize + Sync>(
        &self,
        call: &Call<'_, B>,
        token: &str,
    ) -> Result<(StatusCode, Vec<u8>), RestError> {
        let mut failure = RestError::Unreachable("there is no gateway to ask".into());
        for gateway in self.gateways.in_turn() {
            match self.call_once(call, token, gateway).await {
                Ok(answer) => return read_answer(answer),
                Err(error) => {
                    let may_go_on = call.is_repeatable || error.is_connect();
                    failure = RestError::Unreachable(error.without_url().to_string());
                    if !may_go_on {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    async fn call_once<B: Serialize + Sync>(
        &self,
        call: &Call<'_, B>,
        token: &str,
        gateway: &Url,
    ) -> Result<Answer, reqwest::Error> {
        let mut url = endpoint(gateway, call.path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query);
        }
        let mut request = self.http.request(call.method.clone(), url).bearer_auth(token).timeout(REST_WAIT_MAX);
        if let Some(body) = call.body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status();
        let retry_after = retry_after_header(&response);
        Ok(Answer { status, retry_after, bytes: response.bytes().await?.to_vec() })
    }
}

/// A gateway's answer, whatever it says.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    bytes: Vec<u8>,
}

fn read_answer(answer: Answer) -> Result<(StatusCode, Vec<u8>), RestError> {
    let Answer { status, retry_after, bytes } = answer;
    if status.is_success() {
        return Ok((status, bytes));
    }
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(ErrorBody { code, message, retry_after_ms }) => Err(RestError::Refused {
            status: status.as_u16(),
            code,
            message,
            retry_after: retry_after_ms.map(Duration::from_millis).or(retry_after),
        }),
        Err(error) => Err(RestError::Malformed { status: status.as_u16(), problem: error.to_string() }),
    }
}

/// The body of an answer.
fn read<T: DeserializeOwned>(status: StatusCode, bytes: &[u8]) -> Result<T, RestError> {
    serde_json::from_slice(bytes)
        .map_err(|error| RestError::Malformed { status: status.as_u16(), problem: error.to_string() })
}

/// The `Retry-After` header, where it counts seconds.
pub(crate) fn retry_after_header(response: &reqwest::Response) -> Option<Duration> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The URL of something under `/v1`.
pub(crate) fn endpoint(gateway: &Url, path: &[&str]) -> Url {
    let mut url = gateway.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push("v1").extend(path);
    }
    url
}

/// Which page of a list.
fn page_query(limit: Option<usize>, cursor: Option<&str>) -> impl Iterator<Item = (&'static str, String)> {
    let limit = limit.map(|limit| ("limit", limit.to_string()));
    let cursor = cursor.map(|cursor| ("cursor", cursor.to_owned()));
    limit.into_iter().chain(cursor)
}

/// Ids as a query names them.
fn listed(ids: impl Iterator<Item = impl ToString>) -> String {
    ids.map(|id| id.to_string()).collect::<Vec<_>>().join(",")
}

fn id(conversation_id: ConversationId) -> String {
    conversation_id.as_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_keep_the_gateways_own_path() {
        for base in ["http://gateway:8080", "http://gateway:8080/"] {
            let url = endpoint(&base.parse().unwrap(), &["conversations", "x"]);
            assert_eq!(url.as_str(), "http://gateway:8080/v1/conversations/x");
        }
        let url = endpoint(&"https://example.org/chat/".parse().unwrap(), &["ws"]);
        assert_eq!(url.as_str(), "https://example.org/chat/v1/ws");
    }

    #[test]
    fn gateways_take_turns() {
        let urls: Vec<Url> = ["http://a/", "http://b/", "http://c/"].map(|url| url.parse().unwrap()).into();
        let gateways = Gateways::new(urls);
        gateways.turn();
        assert_eq!(gateways.current().as_str(), "http://b/");
        assert_eq!(gateways.in_turn().map(Url::as_str).collect::<Vec<_>>(), ["http://b/", "http://c/", "http://a/"]);
        gateways.turn();
        gateways.turn();
        assert_eq!(gateways.current().as_str(), "http://a/");
    }
}
