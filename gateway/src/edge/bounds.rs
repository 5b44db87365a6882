//! How large the head of a request may be, and how long its body and its answer may take.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep, timeout};

use super::activity::Waits;
use crate::refusal::Refusal;

/// Bytes of a request's path and query.
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a request's headers, names included.
const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// A request was not answered in time.
#[derive(Debug, thiserror::Error)]
#[error("a request took too long")]
struct TooSlow;

/// A body did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("the body did not come in time")]
struct Late;

/// Refuses heads that nobody needs.
pub(super) async fn small_head(request: Request, next: Next) -> Response {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > TARGET_BYTES_MAX {
        let refusal = Refusal::invalid(format!("the path and query have more than {TARGET_BYTES_MAX} bytes"));
        return (StatusCode::URI_TOO_LONG, refusal).into_response();
    }
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADERS_BYTES_MAX || request.headers().len() > HEADERS_MAX {
        let refusal = Refusal::invalid(format!(
            "there are more than {HEADERS_MAX} headers, or {HEADERS_BYTES_MAX} bytes of them"
        ));
        return (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, refusal).into_response();
    }
    next.run(request).await
}

/// Ends requests that take too long: by the client's fault, or ours.
pub(super) async fn in_time(State(waits): State<Arc<Waits>>, request: Request, next: Next) -> Response {
    let is_late = Arc::new(AtomicBool::new(false));
    let request = request.map(|body| {
        Body::new(Awaited { body, wait_max: waits.body_max, deadline: None, is_late: Arc::clone(&is_late) })
    });
    let answered = timeout(waits.request_max, next.run(request)).await;
    if is_late.load(Ordering::Relaxed) {
        // Whatever was made of half a body.
        return (StatusCode::REQUEST_TIMEOUT, Refusal::late_body()).into_response();
    }
    answered.unwrap_or_else(|_| Refusal::unavailable("an answer in time", &TooSlow).into_response())
}

/// A body that is waited for no longer than this, all in all.
struct Awaited {
    body: Body,
    wait_max: Duration,
    /// Set when it is first waited for.
    deadline: Option<Pin<Box<Sleep>>>,
    is_late: Arc<AtomicBool>,
}

impl HttpBody for Awaited {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let wait_max = self.wait_max;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(wait_max)));
        if deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.is_late.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err(Late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
