//! What a person reads when everything runs.

use std::path::Path;

use crate::{fleet_file::FleetFile, terminal::paint};

/// Prints addresses and commands to paste; `stop` says how to stop.
pub fn print(fleet: &FleetFile, file: &Path, stop: &str) {
    println!("\n{}\n", paint("1;32", "The chat is up."));
    for gateway in &fleet.gateways {
        line(&gateway.name, &format!("{}   {}", gateway.url, gateway.ws_url));
    }
    line("kaha", &format!("{}   (issues tokens, knows names and pictures)", fleet.kaha_url));
    let push_services: Vec<_> =
        fleet.push_service_urls.iter().map(|(platform, url)| format!("{platform} {url}")).collect();
    line("phones", &format!("{}   (stand-ins; GET lists the last notifications)", push_services.join("  ")));
    line("Postgres", &fleet.postgres_url);
    line("NATS", &fleet.nats_url);
    line("Redis", &fleet.redis_url);
    line("logs", &fleet.logs.display().to_string());
    let names: Vec<&str> = fleet.users.iter().map(|user| user.name.as_str()).collect();
    line("people", &format!("{}   (ids and tokens in {})", names.join(", "), file.display()));
    println!("\n{}\n", paint("1", "Try this in another terminal:"));
    for command in examples(fleet) {
        println!("  {command}");
    }
    println!("\n{stop} stops everything; the data is kept for the next start.\n");
}

fn line(name: &str, value: &str) {
    println!("  {name:<10} {value}");
}

fn examples(fleet: &FleetFile) -> Vec<String> {
    let (Some(gateway), [me, other, ..]) = (fleet.gateways.first(), fleet.users.as_slice()) else {
        return Vec::new();
    };
    let (kaha, gateway) = (&fleet.kaha_url, &gateway.url);
    let json = "-H 'content-type: application/json'";
    let bearer = "-H \"authorization: Bearer $TOKEN\"";
    let pick = |field: &str| format!("python3 -c 'import json,sys; print(json.load(sys.stdin)[\"{field}\"])'");
    vec![
        format!("# a token for {}, and a conversation with {}", me.name, other.name),
        format!("TOKEN=$(curl -s {kaha}/dev/tokens {json} -d '{{\"name\":\"{}\"}}' | {})", me.name, pick("token")),
        format!(
            "CHAT=$(curl -s {gateway}/v1/conversations {bearer} {json} \
             -d '{{\"kind\":\"direct\",\"user_id\":\"{}\"}}' | {})",
            other.id,
            pick("conversation_id")
        ),
        "# write, and read".to_owned(),
        format!(
            "curl -s {gateway}/v1/conversations/$CHAT/messages {bearer} {json} \
             -d '{{\"message_id\":\"{}\",\"text\":\"Namaste\"}}'",
            uuid::Uuid::new_v4()
        ),
        format!("curl -s {gateway}/v1/conversations/$CHAT/messages {bearer}"),
        format!("# call {} something else, as everybody sees at once; log {} out", other.name, me.name),
        format!(
            "curl -s {kaha}/dev/profiles {json} -d '{{\"user_id\":\"{}\",\"name\":\"{} Sherpa\"}}'",
            other.id, other.name
        ),
        format!("curl -s {kaha}/dev/logout {json} -d '{{\"user_id\":\"{}\"}}'", me.id),
    ]
}
