//! The shipped permissions are enough: also for what services do after each server was started again.

use anyhow::{Context, Result};
use chat_e2e::{Setup, database, eventually, on_own_fleet, said};

/// The end of every test looks for refused permissions in all logs.
#[test]
fn r6_4_no_service_is_refused_a_permission_while_servers_are_started_again() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let servers = fleet.servers().context("the fleet has its own servers")?;
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (one, mut other) = (fleet.connect(&asha, 0).await?, fleet.connect(&bikram, 1).await?);
        for (number, server) in (1..).zip(["NATS", "Redis", "PostgreSQL"]) {
            match server {
                "NATS" => {
                    servers.nats.stop().await?;
                    servers.nats.start().await?;
                }
                "Redis" => {
                    servers.redis.stop().await?;
                    servers.redis.start().await?;
                }
                _ => {
                    servers.postgres.stop().await?;
                    servers.postgres.start().await?;
                }
            }
            for service in fleet.services() {
                eventually(&format!("readiness after the restart of {server}"), || async {
                    Ok(service.is_ready().await.then_some(()))
                })
                .await?;
            }
            one.say(conversation_id, &said(server)).await?;
            other.expect([number]).await?;
            database::wait_until_stored(&fleet.urls().postgres, conversation_id, number).await?;
        }
        Ok(())
    })
}
