//! Promise 10: without Redis live chat goes on. Promise 4: who lost their inbox is told so, and loses no message.

use anyhow::{Context, Result};
use chat_e2e::{Setup, TestFleet, on_own_fleet, said};
use chat_shared::{
    ids::{DeviceId, MessageId},
    wire::{Encoding, Resume},
};

async fn flush(fleet: &TestFleet) -> Result<()> {
    let mut connection = redis::Client::open(fleet.urls().redis.as_str())?.get_multiplexed_async_connection().await?;
    Ok(redis::cmd("FLUSHALL").query_async(&mut connection).await?)
}

#[test]
fn promise_4_a_flushed_redis_is_told_to_clients_who_then_have_everything() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (one, mut other) = (fleet.connect(&asha, 0).await?, fleet.connect(&bikram, 1).await?);
        one.say(conversation_id, &said("before")).await?;
        other.expect([1]).await?;
        let mut socket = fleet.socket(&bikram, 0, Encoding::Json).await?;
        let ready = socket.hello(DeviceId::random(), None).await?;
        let resume = Resume { epoch: ready.epoch.context("there is an inbox")?, cursor: ready.cursor };

        flush(fleet).await?;
        for number in 2..=11 {
            one.say(conversation_id, &said(number)).await?;
        }
        assert_eq!(socket.close_code().await?, (4003, "inbox_lost".to_owned()));
        let mut socket = fleet.socket(&bikram, 1, Encoding::MessagePack).await?;
        let ready = socket.hello(DeviceId::random(), Some(resume)).await?;
        assert!(!ready.resumed && ready.epoch != Some(resume.epoch), "it is another inbox");

        other.expect(2..=11).await?;
        one.say(conversation_id, &said("after")).await?;
        other.expect([12]).await?;
        assert!(other.left_over().is_empty());
        Ok(())
    })
}

#[test]
fn promise_10_r11_3_without_redis_live_chat_goes_on_and_resumes_later() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let servers = fleet.servers().context("the fleet has its own servers")?;
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let (one, mut other) = (fleet.connect(&asha, 0).await?, fleet.connect(&bikram, 1).await?);
        let mut before = fleet.ready_socket(&bikram, 0, Encoding::Json).await?;
        one.say(conversation_id, &said("before")).await?;
        other.expect([1]).await?;
        before.frame_where(|frame| frame["message"]["seq"] == 1).await?;

        servers.redis.kill().await?;
        for number in 2..=6 {
            one.say(conversation_id, &said(number)).await?;
        }
        other.expect(2..=6).await?;
        let unnumbered = before.frame_where(|frame| frame["message"]["seq"] == 6).await?;
        assert!(unnumbered["cursor"].is_null(), "without an inbox there is no place in it");
        // Who comes now is let in, without an inbox, and can send and hear.
        let mut newcomer = fleet.socket(&bikram, 0, Encoding::Json).await?;
        let ready = newcomer.hello(DeviceId::random(), None).await?;
        assert_eq!((ready.epoch, ready.resumed), (None, false));
        assert_eq!(newcomer.send(conversation_id, MessageId::random(), &said(7)).await?["type"], "accepted");
        newcomer.frame_where(|frame| frame["message"]["seq"] == 7).await?;
        other.expect([7]).await?;

        servers.redis.start().await?;
        assert_eq!(newcomer.close_code().await?, (4003, "inbox_lost".to_owned()), "come back for an inbox");
        for number in 8..=10 {
            one.say(conversation_id, &said(number)).await?;
        }
        other.expect(8..=10).await?;
        let mut resumed = fleet.socket(&bikram, 0, Encoding::Json).await?;
        assert!(resumed.hello(DeviceId::random(), None).await?.epoch.is_some(), "there is an inbox again");
        assert!(other.left_over().is_empty());
        Ok(())
    })
}
