//! What a person reads when everything runs.

use std::path::Path;

use crate::{fleet_file::FleetFile, terminal::paint};

/// Prints addresses and commands to paste; `stop` says how to stop.
pub fn print(fleet: &FleetFile, file: &Path, stop: &str) {
    println!("\n{}\n", paint("1;32", "The chat is up."));
    for gateway in &fleet.gateways {
        line(&gateway.name, &format!("{}   {}", gateway.url, gateway.ws_url));
    }
    line("kaha", &format!("{}   (issues tokens, serves their public key)", fleet.kaha_url));
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
    let (Some(gateway), Some(user)) = (fleet.gateways.first(), fleet.users.first()) else {
        return Vec::new();
    };
    let wish = format!("{{\"name\":\"{}\"}}", user.name);
    vec![
        format!(
            "TOKEN=$(curl -s {}/dev/tokens -H 'content-type: application/json' -d '{wish}' | \
             python3 -c 'import json,sys; print(json.load(sys.stdin)[\"token\"])')",
            fleet.kaha_url
        ),
        format!("curl -s {}/v1/conversations -H \"authorization: Bearer $TOKEN\"", gateway.url),
        format!("curl -s {}/openapi.json", gateway.url),
    ]
}
