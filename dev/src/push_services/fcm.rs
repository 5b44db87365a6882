//! Stand-in for Firebase Cloud Messaging (HTTP v1), with the endpoint where Google changes a service account's signed
//! claims for an access token.

mod message;
mod offline;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use chat_shared::wire::Platform;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Value, json};

use self::offline::Offline;
use super::{
    book::Received,
    credentials::ServiceAccount,
    desk::{Desk, Objection, Taken, header, now_s},
};
use crate::stand_in::{
    json_web_token::{SKEW_MAX_S, check_expiry, verify},
    lock,
    server::Cut,
};

/// How long an access token lives.
const ACCESS_TOKEN_TTL_S: i64 = 3599;

/// How long a service account's claims may hold.
const CLAIMS_LIFETIME_MAX_S: i64 = 3600;

/// Access tokens remembered; with more, all are forgotten.
const ACCESS_TOKENS_MAX: usize = 10_000;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// Both endpoints' state.
#[derive(Debug)]
pub struct Fcm {
    desk: Desk,
    account: ServiceAccount,
    /// With the second of their end.
    access_tokens: Mutex<HashMap<String, i64>>,
    offline: Offline,
}

impl Fcm {
    pub fn new(desk: Desk, account: ServiceAccount) -> Self {
        Self { desk, account, access_tokens: Mutex::default(), offline: Offline::default() }
    }

    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    pub fn access_tokens(&self) -> usize {
        lock(&self.access_tokens).len()
    }

    pub fn revoke_access_tokens(&self) {
        lock(&self.access_tokens).clear();
    }

    /// Keeps what is sent to a device from now on.
    pub fn disconnect(&self, token: &str) {
        self.offline.begin(token);
    }

    /// Ends that, and gives the messages that were kept for the device.
    pub fn reconnect(&self, token: &str) -> Vec<Received> {
        self.offline.end(token)
    }

    fn grant(&self, form: &[u8]) -> Result<String, (&'static str, String)> {
        let fields: HashMap<_, _> = form_urlencoded::parse(form).collect();
        if fields.get("grant_type").is_none_or(|grant| grant != GRANT_TYPE) {
            return Err(("unsupported_grant_type", "Invalid grant_type".to_owned()));
        }
        let assertion = fields.get("assertion").ok_or(("invalid_request", "assertion is missing".to_owned()))?;
        self.check_assertion(assertion).map_err(|reason| ("invalid_grant", reason))?;
        let token = format!("ya29.{}", BASE64.encode(rand::random::<[u8; 32]>()));
        let mut tokens = lock(&self.access_tokens);
        if tokens.len() >= ACCESS_TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(token.clone(), now_s() + ACCESS_TOKEN_TTL_S);
        Ok(token)
    }

    fn check_assertion(&self, assertion: &str) -> Result<(), String> {
        let account = &self.account;
        let verified = verify(assertion, Algorithm::RS256, &DecodingKey::from_rsa_der(&account.public))?;
        if verified.key_id.is_some_and(|key_id| key_id != account.key_id) {
            return Err("kid names another key".to_owned());
        }
        let claims = &verified.claims;
        if claims["iss"] != *account.email {
            return Err("iss isn't the service account".to_owned());
        }
        if claims["aud"] != *account.token_url {
            return Err(format!("aud isn't {}", account.token_url));
        }
        if !claims["scope"].as_str().is_some_and(|scopes| scopes.split(' ').any(|scope| scope == SCOPE)) {
            return Err(format!("scope lacks {SCOPE}"));
        }
        let now_s = now_s();
        let issued_s = claims["iat"].as_i64().ok_or("iat is missing")?;
        if issued_s > now_s + SKEW_MAX_S {
            return Err("iat is ahead".to_owned());
        }
        let expires_s = check_expiry(claims, now_s, CLAIMS_LIFETIME_MAX_S)?;
        if expires_s - issued_s > CLAIMS_LIFETIME_MAX_S {
            return Err("the claims hold for more than an hour".to_owned());
        }
        Ok(())
    }

    fn check_bearer(&self, headers: &HeaderMap) -> Result<(), Objection> {
        let refused = |reason: &str| {
            let message = "Request had invalid authentication credentials. Expected OAuth 2 access token.";
            let mut objection = error(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", message, &[]);
            reason.clone_into(&mut objection.reason);
            objection
        };
        let authorization = header(headers, "authorization").ok_or_else(|| refused("no Authorization"))?;
        let token = authorization.strip_prefix("Bearer ").ok_or_else(|| refused("Authorization isn't Bearer"))?;
        match lock(&self.access_tokens).get(token) {
            None => Err(refused("unknown access token")),
            Some(end_s) if *end_s <= now_s() => Err(refused("expired access token")),
            Some(_) => Ok(()),
        }
    }

    fn judge(&self, project: &str, headers: &HeaderMap, request: Result<Value, Objection>) -> Result<Taken, Objection> {
        self.check_bearer(headers)?;
        if project != self.account.project {
            return Err(error(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "the project is another's", &[]));
        }
        let received = message::check(&request?)?;
        if self.desk.dead_since(&received.token).is_some() {
            let code = fcm_error("UNREGISTERED");
            return Err(error(StatusCode::NOT_FOUND, "NOT_FOUND", "Requested entity was not found.", &[code]));
        }
        if self.desk.is_foreign(&received.token) {
            let code = fcm_error("SENDER_ID_MISMATCH");
            return Err(error(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "SenderId mismatch", &[code]));
        }
        self.offline.keep(&received);
        let name = format!("projects/{project}/messages/0:{}", uuid::Uuid::new_v4().simple());
        Ok(Taken { received, answer: Json(json!({ "name": name })).into_response() })
    }
}

/// Makes the routers of connections.
pub fn router(fcm: &Arc<Fcm>) -> impl Fn() -> Router + Send + 'static {
    // The custom method `:send` is part of the last segment.
    let router = Router::new()
        .route("/token", post(token))
        .route("/v1/projects/{project}/messages:send", post(send))
        .with_state(Arc::clone(fcm))
        .merge(fcm.desk.listing());
    move || router.clone()
}

async fn token(State(fcm): State<Arc<Fcm>>, body: Bytes) -> Response {
    match fcm.grant(&body) {
        Ok(token) => {
            let answer = json!({ "access_token": token, "expires_in": ACCESS_TOKEN_TTL_S, "token_type": "Bearer" });
            Json(answer).into_response()
        }
        Err((code, reason)) => {
            let body = json!({ "error": code, "error_description": reason });
            fcm.desk.refuse(None, Objection { status: StatusCode::BAD_REQUEST, reason, body }, None)
        }
    }
}

async fn send(
    State(fcm): State<Arc<Fcm>>,
    Extension(cut): Extension<Cut>,
    Path(project): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = serde_json::from_slice::<Value>(&body)
        .map_err(|error| invalid(&format!("Invalid JSON payload received. {error}"), "message"));
    let token = request.as_ref().ok().and_then(|request| request["message"]["token"].as_str().map(str::to_owned));
    fcm.desk.answer(&cut, token.as_deref(), || fcm.judge(&project, &headers, request), failure).await
}

/// A failure of the service itself.
fn failure(status: StatusCode) -> Objection {
    let (name, code) = match status.as_u16() {
        401 => ("UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
        403 => ("PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
        429 => ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        503 => ("UNAVAILABLE", "UNAVAILABLE"),
        _ => ("INTERNAL", "INTERNAL"),
    };
    error(status, name, "told to fail", &[fcm_error(code)])
}

fn fcm_error(code: &str) -> Value {
    json!({ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code })
}

/// A request that isn't as it must be.
fn invalid(message: &str, field: &str) -> Objection {
    let violations = json!({
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{ "field": field, "description": message }],
    });
    error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message, &[violations, fcm_error("INVALID_ARGUMENT")])
}

/// An error as Google's interfaces tell it.
fn error(status: StatusCode, name: &str, message: &str, details: &[Value]) -> Objection {
    let body = json!({
        "error": { "code": status.as_u16(), "message": message, "status": name, "details": details },
    });
    Objection { status, reason: message.to_owned(), body }
}

const PLATFORM: Platform = Platform::Fcm;

#[cfg(test)]
mod tests {
    use jsonwebtoken::EncodingKey;
    use reqwest::RequestBuilder;

    use super::*;
    use crate::push_services::{
        PushServices,
        tests::{changed, client, reasons, sign, start, tampered},
    };

    struct Google<'a> {
        services: &'a PushServices,
        account: Value,
    }

    impl<'a> Google<'a> {
        fn of(services: &'a PushServices) -> Self {
            let file = &services.credentials.fcm.file;
            Self { services, account: serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap() }
        }

        fn assertion(&self, changes: &Value) -> String {
            let claims = json!({
                "iss": self.account["client_email"], "aud": self.account["token_uri"], "scope": SCOPE,
                "iat": now_s(), "exp": now_s() + 3600,
            });
            let key = EncodingKey::from_rsa_pem(self.account["private_key"].as_str().unwrap().as_bytes()).unwrap();
            sign(Algorithm::RS256, &key, self.account["private_key_id"].as_str().unwrap(), &changed(claims, changes))
        }

        async fn token(&self, assertion: &str) -> (StatusCode, Value) {
            let form = form_urlencoded::Serializer::new(String::new())
                .extend_pairs([("grant_type", GRANT_TYPE), ("assertion", assertion)])
                .finish();
            let url = self.account["token_uri"].as_str().unwrap();
            let request = client().post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
            answer(request).await
        }

        async fn access_token(&self) -> String {
            let (status, answer) = self.token(&self.assertion(&json!({}))).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
            answer["access_token"].as_str().unwrap().to_owned()
        }

        async fn send(&self, access_token: &str, request: &Value) -> (StatusCode, Value) {
            let project = self.account["project_id"].as_str().unwrap();
            let url = format!("{}/v1/projects/{project}/messages:send", self.services.url(PLATFORM));
            answer(client().post(url).bearer_auth(access_token).json(request)).await
        }
    }

    async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    fn message(changes: &Value) -> Value {
        let message = json!({
            "token": "phone-1",
            "data": {
                "kind": "message", "title": "Asha", "body": "Hi",
                "conversation_id": "c", "message_id": "m", "seq": "7", "badge": "3",
            },
            "android": { "collapse_key": "key", "priority": "HIGH", "ttl": "60s" },
        });
        json!({ "message": changed(message, changes) })
    }

    #[tokio::test]
    async fn only_the_accounts_own_fresh_claims_are_worth_an_access_token() {
        let (_directory, services) = start().await;
        let google = Google::of(&services);
        google.access_token().await;
        let good = google.assertion(&json!({}));
        for bad in [
            tampered(&good),
            google.assertion(&json!({ "exp": now_s() - 1 })),
            google.assertion(&json!({ "exp": now_s() + 2 * 3600 })),
            google.assertion(&json!({ "iat": now_s() - 3600 })),
            google.assertion(&json!({ "iss": "somebody@example.com" })),
            google.assertion(&json!({ "aud": "https://example.com/token" })),
            google.assertion(&json!({ "scope": "https://www.googleapis.com/auth/drive" })),
        ] {
            let (status, answer) = google.token(&bad).await;
            assert_eq!((status.as_u16(), &answer["error"]), (400, &json!("invalid_grant")), "{answer}");
        }
        assert_eq!(services.refused(PLATFORM).len(), 7, "{:?}", reasons(&services, PLATFORM));
    }

    #[tokio::test]
    async fn a_message_is_taken_whole_and_another_is_refused_as_google_does() {
        let (_directory, services) = start().await;
        let google = Google::of(&services);
        let token = google.access_token().await;
        let (status, answer) = google.send(&token, &message(&json!({}))).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let received = services.received(PLATFORM).pop().unwrap();
        assert_eq!((received.token.as_str(), received.collapse_key.as_deref()), ("phone-1", Some("key")));
        assert_eq!((received.title.as_deref(), received.body.as_deref()), (Some("Asha"), Some("Hi")));
        assert_eq!((received.badge, received.seq, received.is_alert), (Some(3), Some(7), true));

        for bad in [
            message(&json!({ "to": "phone-1" })),
            message(&json!({ "token": null })),
            message(&json!({ "token": "not a token" })),
            message(&json!({ "data": { "seq": 7 } })),
            message(&json!({ "data": { "from": "me" } })),
            message(&json!({ "data": { "text": "x".repeat(4096) } })),
            message(&json!({ "android": { "ttl": "60" } })),
            message(&json!({ "android": { "ttl": "2419201s" } })),
            message(&json!({ "android": { "priority": "urgent" } })),
            message(&json!({ "android": { "notification": { "heading": "Asha" } } })),
        ] {
            let (status, answer) = google.send(&token, &bad).await;
            assert_eq!((status.as_u16(), &answer["error"]["status"]), (400, &json!("INVALID_ARGUMENT")), "{bad}");
        }
        assert_eq!(services.received(PLATFORM).len(), 1);
    }

    #[tokio::test]
    async fn an_offline_device_gets_the_messages_of_four_collapse_keys_and_those_without_one() {
        let (_directory, services) = start().await;
        let google = Google::of(&services);
        let token = google.access_token().await;
        let titles_after = async |messages: &[Value]| {
            services.disconnect("phone-1");
            for message in messages {
                assert_eq!(google.send(&token, message).await.0, StatusCode::OK);
            }
            services.reconnect("phone-1").into_iter().filter_map(|received| received.title).collect::<Vec<_>>()
        };
        let titled = |title: &str, android: &Value| {
            message(&json!({ "data": { "kind": "message", "title": title }, "android": android }))
        };
        let with_keys = ["a", "b", "c", "d", "e", "a"].map(|key| titled(key, &json!({ "collapse_key": key })));
        assert_eq!(titles_after(&with_keys).await, ["c", "d", "e", "a"]);
        let without_keys = ["a", "b", "c", "d", "e"].map(|title| titled(title, &json!({})));
        assert_eq!(titles_after(&without_keys).await, ["a", "b", "c", "d", "e"]);
        let shown = |title: &str| message(&json!({ "notification": { "title": title } }));
        assert_eq!(titles_after(&[shown("a"), shown("b")]).await, ["b"], "they share a key");
    }

    #[tokio::test]
    async fn neither_a_worthless_access_token_nor_a_dead_phones_is_taken() {
        let (_directory, services) = start().await;
        let google = Google::of(&services);
        let token = google.access_token().await;
        assert_eq!(google.send("ya29.other", &message(&json!({}))).await.0, StatusCode::UNAUTHORIZED);
        services.kill_token("phone-1");
        let (status, answer) = google.send(&token, &message(&json!({}))).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(answer["error"]["details"][0]["errorCode"], "UNREGISTERED");
        services.revoke_access_tokens();
        assert_eq!(google.send(&token, &message(&json!({}))).await.0, StatusCode::UNAUTHORIZED);
    }
}
