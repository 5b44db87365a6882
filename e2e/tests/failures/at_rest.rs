//! Promise 9: content at rest is ciphertext everywhere.

use anyhow::{Context, Result};
use chat_e2e::{MARK, Setup, database, on_own_fleet, said, traces};
use chat_shared::wire::Encoding;

#[test]
fn promise_9_r6_1_no_text_is_in_the_files_of_postgres_nats_or_redis() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let servers = fleet.servers().context("the fleet has its own servers")?;
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut socket = fleet.ready_socket(&bikram, 1, Encoding::Json).await?;
        for number in 1..=10 {
            fleet.api(&asha, 0).say(conversation_id, &said(number)).await?;
        }
        socket.frame_where(|frame| frame["message"]["seq"] == 10).await?;
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 10).await?;

        // Everything that is in memory only comes to the disk, as it is.
        database::execute(&fleet.urls().postgres, "checkpoint").await?;
        let client = redis::Client::open(fleet.urls().redis.as_str())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let uncompressed = ["CONFIG", "SET", "rdbcompression", "no"];
        redis::cmd(uncompressed[0]).arg(&uncompressed[1..]).exec_async(&mut connection).await?;
        redis::cmd("SAVE").exec_async(&mut connection).await?;

        let id = conversation_id.as_uuid();
        let user = bikram.id.as_uuid().simple().to_string();
        for (directory, known) in [
            (servers.postgres.data_dir(), id.as_bytes().to_vec()),
            (servers.nats.data_dir(), id.simple().to_string().into_bytes()),
            (servers.redis.data_dir(), user.into_bytes()),
        ] {
            let name = directory.display();
            assert!(!traces::files_with(directory, &known)?.is_empty(), "the search finds what is in {name}");
            assert_eq!(traces::files_with(directory, MARK.as_bytes())?, [] as [std::path::PathBuf; 0], "{name}");
        }
        Ok(())
    })
}
