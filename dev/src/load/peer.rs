//! Peers: what a team would otherwise take. They get the same load as this backend, on the same servers with the same
//! settings, and have to show the same proof.

mod database;
mod ejabberd;
mod socket_io;

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::net::TcpStream;

pub use self::{ejabberd::Ejabberd, socket_io::SocketIo};
use super::subject::Watched;
use crate::process::Process;

/// Another chat backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Socket.IO with its Redis adapter, messages in Postgres.
    SocketIo,
    /// ejabberd with its archive in Postgres.
    Ejabberd,
}

impl Peer {
    /// Sees to it that what it needs is there, so that what is missing is said before anything is built or measured.
    ///
    /// # Errors
    /// If something is missing, with how to get it.
    pub async fn prepare(self) -> Result<()> {
        match self {
            Self::SocketIo => SocketIo::prepare().await,
            Self::Ejabberd => Ejabberd::prepare().await,
        }
    }
}

fn watched(process: &Process, has_family: bool) -> Result<Watched> {
    let pid = process.pid().with_context(|| format!("{} has ended", process.name()))?;
    Ok(Watched { name: process.name().to_owned(), pid, has_family, counts_syncs: false })
}

async fn is_listening(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}
