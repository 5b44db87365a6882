//! A proxy before an object store, which fails as it is told.
//!
//! Requests go on as they came, with the host and the signature that the client gave them, so that the store takes them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    client, header, server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// Its connection ends before the store has it.
    Refused,
    /// It has no answer, and its connection stays open.
    Stalled,
    /// Its connection ends in the middle of the answer's body.
    Cut,
    /// The store does what it asks for, and the answer is 500.
    FailedAfter,
    /// The answer's body has other bytes, as many.
    OtherBytes,
}

/// A proxy that listens on a port of its own.
#[derive(Debug)]
pub struct StoreProxy {
    port: u16,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    target: watch::Sender<Option<String>>,
    order: Mutex<Option<Order>>,
    reads: AtomicU64,
    writes: AtomicU64,
    faults: AtomicU64,
}

/// Which requests fail, and how.
#[derive(Debug, Clone)]
struct Order {
    fault: StoreFault,
    method: Option<Method>,
    is_once: bool,
}

impl StoreProxy {
    /// A proxy that leads nowhere yet: requests wait until it does.
    pub async fn open() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a proxy needs a port")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            target: watch::Sender::default(),
            order: Mutex::default(),
            reads: AtomicU64::default(),
            writes: AtomicU64::default(),
            faults: AtomicU64::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared, _tasks: tasks })
    }

    /// `http://…` of this end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Leads it to a store: `host:port`.
    pub fn lead_to(&self, target: String) {
        self.shared.target.send_replace(Some(target));
    }

    /// All requests fail from now on, or those with a method.
    pub fn fail(&self, fault: StoreFault, method: Option<Method>) {
        self.shared.order(Some(Order { fault, method, is_once: false }));
    }

    /// The next request fails, or the next one with a method.
    pub fn fail_once(&self, fault: StoreFault, method: Option<Method>) {
        self.shared.order(Some(Order { fault, method, is_once: true }));
    }

    /// No further request fails.
    pub fn heal(&self) {
        self.shared.order(None);
    }

    /// Requests with GET that came so far.
    pub fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::Relaxed)
    }

    /// Requests with PUT that came so far.
    pub fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::Relaxed)
    }

    /// Requests that failed so far because they were to.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn order(&self, order: Option<Order>) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = order;
    }

    /// Counts a request, and says what happens to it.
    fn fault_of(&self, method: &Method) -> Option<StoreFault> {
        match *method {
            Method::GET => _ = self.reads.fetch_add(1, Ordering::Relaxed),
            Method::PUT => _ = self.writes.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let is_meant = |order: &Order| order.method.as_ref().is_none_or(|meant| meant == method);
        let found = order.clone().filter(is_meant)?;
        if found.is_once {
            *order = None;
        }
        self.faults.fetch_add(1, Ordering::Relaxed);
        Some(found.fault)
    }
}

/// The body of an answer, which may end with a failure.
type Body = BoxBody<Bytes, anyhow::Error>;

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &shared));
            // How a connection ends is the client's matter.
            _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Fails where the connection is to end.
async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Body>> {
    let fault = shared.fault_of(request.method());
    match fault {
        Some(StoreFault::Refused) => return Err(anyhow!("refused")),
        Some(StoreFault::Stalled) => std::future::pending().await,
        _ => {}
    }
    let (mut head, bytes) = pass_on(request, shared).await?.into_parts();
    // The body is passed on as a whole.
    head.headers.remove(header::TRANSFER_ENCODING);
    head.headers.remove(header::CONNECTION);
    let body = match fault {
        Some(StoreFault::FailedAfter) => {
            head.status = StatusCode::INTERNAL_SERVER_ERROR;
            head.headers.clear();
            body(stream::empty())
        }
        Some(StoreFault::Cut) => {
            let half = Ok(bytes.slice(..bytes.len() / 2));
            body(stream::iter([half, Err(anyhow!("cut"))]))
        }
        Some(StoreFault::OtherBytes) => body(whole(bytes.iter().map(|byte| !byte).collect())),
        _ => body(whole(bytes)),
    };
    Ok(Response::from_parts(head, body))
}

async fn pass_on(request: Request<Incoming>, shared: &Shared) -> Result<Response<Bytes>> {
    let target = shared.target.subscribe().wait_for(Option::is_some).await?.clone().context("it leads somewhere")?;
    let stream = TcpStream::connect(&target).await?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        anyhow::Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    };
    // The connection ends after the exchange, which has the only sender.
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

fn whole(bytes: Bytes) -> impl Stream<Item = Result<Bytes>> + Send + Sync + 'static {
    stream::iter((!bytes.is_empty()).then_some(Ok(bytes)))
}

fn body(chunks: impl Stream<Item = Result<Bytes>> + Send + Sync + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))))
}
