//! A TCP relay for tests.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A relay whose connections can be made to take bytes and move none.
pub struct Relay {
    pub address: String,
    born: Arc<AtomicU64>,
    silent_to: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub async fn open(target: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (born, silent_to) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        let (count, silent) = (Arc::clone(&born), Arc::clone(&silent_to));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                let (target, silent) = (target.clone(), Arc::clone(&silent));
                connections.spawn(async move { carry(client, &target, number, &silent).await });
            }
        });
        Ok(Self { address, born, silent_to, _tasks: tasks })
    }

    pub fn silence(&self) {
        self.silent_to.store(self.born.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

async fn carry(client: TcpStream, target: &str, number: u64, silent_to: &AtomicU64) -> Result<()> {
    let server = TcpStream::connect(target).await?;
    let ((from_client, mut to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
    let is_silent = || silent_to.load(Ordering::Relaxed) >= number;
    let mut chunk = vec![0; 16 * 1024];
    loop {
        // Cancel safe: it is only waited for readiness.
        let (from, to) = tokio::select! {
            ready = from_client.readable() => ready.map(|()| (&from_client, &mut to_server))?,
            ready = from_server.readable() => ready.map(|()| (&from_server, &mut to_client))?,
        };
        match from.try_read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) if !is_silent() => to.write_all(&chunk[..count]).await?,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}
