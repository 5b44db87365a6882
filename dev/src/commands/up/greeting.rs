//! What a person reads when everything runs.

use std::path::Path;

use chat_shared::wire::StaffRole;
use uuid::Uuid;

use crate::{
    fleet_file::{FleetFile, StaffEntry},
    push_services::APP_IDS,
    terminal::paint,
};

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
    let staff = |entry: &StaffEntry| format!("{} ({})", entry.user.name, entry.role.as_str());
    let staff: Vec<_> = fleet.business.staff.iter().map(staff).collect();
    line("business", &format!("{}: {}", fleet.business.name, staff.join(", ")));
    println!("\n{}\n", paint("1", "Try this in another terminal:"));
    for command in examples(fleet).into_iter().chain(business_examples(fleet)) {
        println!("  {command}");
    }
    println!("\n{stop} stops everything; the data is kept for the next start.\n");
}

fn line(name: &str, value: &str) {
    println!("  {name:<10} {value}");
}

const JSON: &str = "-H 'content-type: application/json'";

/// A command that prints a field of the JSON that it reads.
fn pick(field: &str) -> String {
    format!("python3 -c 'import json,sys; print(json.load(sys.stdin)[\"{field}\"])'")
}

fn examples(fleet: &FleetFile) -> Vec<String> {
    let (Some(gateway), [me, other, ..]) = (fleet.gateways.first(), fleet.users.as_slice()) else {
        return Vec::new();
    };
    let (kaha, gateway) = (&fleet.kaha_url, &gateway.url);
    let bearer = "-H \"authorization: Bearer $TOKEN\"";
    let json = JSON;
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
            Uuid::new_v4()
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

/// A case from the first message until it is resolved.
fn business_examples(fleet: &FleetFile) -> Vec<String> {
    let business = &fleet.business;
    let agent = business.staff.iter().find(|member| member.role == StaffRole::Agent);
    let (Some(gateway), Some(customer), Some(agent)) = (fleet.gateways.first(), fleet.users.get(1), agent) else {
        return Vec::new();
    };
    let (kaha, v1, json, business_id) = (&fleet.kaha_url, format!("{}/v1", gateway.url), JSON, business.id);
    let (as_customer, as_agent) = ("-H \"authorization: Bearer $CUSTOMER\"", "-H \"authorization: Bearer $AGENT\"");
    let token =
        |name: &str| format!("$(curl -s {kaha}/dev/tokens {json} -d '{{\"name\":\"{name}\"}}' | {})", pick("token"));
    let text = |text: &str| format!("{json} -d '{{\"message_id\":\"{}\",\"text\":\"{text}\"}}'", Uuid::new_v4());
    vec![
        format!("# {} opens a conversation with {}, and writes", customer.name, business.name),
        format!("CUSTOMER={}", token(&customer.name)),
        format!(
            "CASE=$(curl -s {v1}/conversations {as_customer} {json} \
             -d '{{\"kind\":\"business\",\"business_id\":\"{business_id}\"}}' | {})",
            pick("conversation_id")
        ),
        format!("curl -s {v1}/conversations/$CASE/messages {as_customer} {}", text("Do you have tea?")),
        format!("# {}, an agent with a phone, is available and is given the case", agent.user.name),
        format!("AGENT={}", token(&agent.user.name)),
        format!(
            "curl -s -X PUT {v1}/devices/{} {as_agent} {json} \
             -d '{{\"platform\":\"fcm\",\"token\":\"{:064x}\",\"app_id\":\"{}\"}}'",
            Uuid::new_v4(),
            agent.user.id.as_u128(),
            APP_IDS[1]
        ),
        format!(
            "curl -s -X PUT {v1}/businesses/{business_id}/status {as_agent} {json} -d '{{\"status\":\"available\"}}'"
        ),
        format!("curl -s '{v1}/businesses/{business_id}/conversations?state=assigned' {as_agent}"),
        "# the agent answers, and resolves the case; the next message opens another one".to_owned(),
        format!(
            "SEQ=$(curl -s {v1}/conversations/$CASE/messages {as_agent} {} | {})",
            text("Yes, from Ilam."),
            pick("seq")
        ),
        format!("curl -s {v1}/conversations/$CASE/resolve {as_agent} {json} -d \"{{\\\"seq\\\":$SEQ}}\""),
    ]
}
