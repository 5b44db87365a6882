//! What every scenario begins with: built programs, servers, the floors of the machine.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, ensure};
use chat_load::{plan::FloorsPlan, report::Floors};
use tempfile::TempDir;
use tokio::process::Command;

use super::{
    chat::{self, Chat, ChatOptions},
    peer::{Ejabberd, SocketIo},
    run::Tools,
};
use crate::{
    fleet::{Profile, Programs},
    paths,
    ports::Ports,
    servers::{Binaries, Servers, seaweedfs::Seaweedfs},
    terminal,
};

/// The package of the client processes, and their program.
const GENERATOR: &str = "chat-load";

/// Programs, and room for what they write.
#[derive(Debug)]
pub struct Setting {
    /// The server programs.
    pub binaries: Binaries,
    /// The services.
    pub programs: Programs,
    /// What loads need.
    pub tools: Tools,
    /// Whether the floors are measured.
    pub measures_floors: bool,
    scratch: TempDir,
}

impl Setting {
    /// Builds and finds what is needed.
    pub async fn prepare(profile: Profile, measures_floors: bool) -> Result<Self> {
        let (binaries, programs) =
            tokio::try_join!(Binaries::find_or_fetch(), Programs::build_with(profile, &[GENERATOR]))?;
        let scratch = paths::scratch("load")?;
        let generator = programs.of_package(GENERATOR)?.to_path_buf();
        let tools = Tools { generator, scratch: scratch.path().to_path_buf() };
        Ok(Self { binaries, programs, tools, measures_floors, scratch })
    }

    /// A directory of its own for one set of servers.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Starts this backend, and measures the floors on its servers before anything else uses them.
    pub async fn chat(&self, options: ChatOptions) -> Result<(Chat, Option<Floors>)> {
        let servers = self.servers().await?;
        self.chat_on(servers, options).await
    }

    /// The same with an object store for old bodies, and the cold worker.
    pub async fn chat_with_store(&self, options: ChatOptions) -> Result<(Chat, Option<Floors>)> {
        let mut servers = self.servers().await?;
        let data = self.directory("chat").join("data");
        servers.store = Some(Seaweedfs::start_in(&self.binaries, &data, &Ports::fresh()).await?);
        self.chat_on(servers, options).await
    }

    async fn servers(&self) -> Result<Servers> {
        terminal::progress("starting servers and services of its own");
        chat::start_servers(&self.binaries, &self.directory("chat")).await
    }

    async fn chat_on(&self, servers: Servers, options: ChatOptions) -> Result<(Chat, Option<Floors>)> {
        let directory = self.directory("chat");
        let floors = if self.measures_floors { Some(self.floors(&servers).await?) } else { None };
        let (binaries, programs) = (self.binaries.clone(), self.programs.clone());
        Ok((Chat::start_on(servers, binaries, programs, &directory, options).await?, floors))
    }

    /// Starts the Socket.IO peer.
    pub async fn socket_io(&self) -> Result<SocketIo> {
        SocketIo::start(&self.binaries, &self.directory("socket-io")).await
    }

    /// Starts the ejabberd peer.
    pub async fn ejabberd(&self) -> Result<Ejabberd> {
        Ejabberd::start(&self.binaries, &self.directory("ejabberd")).await
    }

    /// In a process of the same build as the client processes.
    async fn floors(&self, servers: &Servers) -> Result<Floors> {
        terminal::progress("measuring what the machine's parts can do by themselves");
        let directory = self.directory("floors");
        std::fs::create_dir_all(&directory)?;
        let plan = FloorsPlan { directory, nats_url: servers.nats.url(), postgres_url: servers.postgres.url() };
        let file = self.directory("floors.json");
        std::fs::write(&file, serde_json::to_vec(&plan)?)?;
        let output = Command::new(&self.tools.generator)
            .arg("floors")
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot measure the floors")?;
        ensure!(output.status.success(), "the floors can't be measured");
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
