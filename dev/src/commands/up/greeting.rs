//! What a person reads when everything runs.

use std::path::Path;

use chat_shared::wire::StaffRole;
use uuid::Uuid;

use crate::{
    fleet_file::{FleetFile, StaffEntry},
    kaha::SCOPE_EXPORT,
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
    for replica in &fleet.replica_urls {
        line("replica", replica);
    }
    line("NATS", &fleet.nats_url);
    line("Redis", &fleet.redis_url);
    if let Some(url) = &fleet.store_url {
        line("SeaweedFS", url);
    }
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
    let (kaha, gateway, internal) = (&fleet.kaha_url, &gateway.url, &gateway.internal_url);
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
        format!("# export the data of {}", me.name),
        format!(
            "curl -s {internal}/internal/v1/users/{}/export -H \"authorization: Bearer $(curl -s {kaha}/dev/service-tokens {json} \
             -d '{{\"scopes\":[\"{SCOPE_EXPORT}\"]}}' | {})\"",
            me.id,
            pick("token")
        ),
    ]
}

/// A case from the first message until it is resolved, by the second of two agents.
fn business_examples(fleet: &FleetFile) -> Vec<String> {
    let business = &fleet.business;
    let agents: Vec<_> = business.staff.iter().filter(|member| member.role == StaffRole::Agent).collect();
    let (Some(gateway), Some(customer), [agent, colleague, ..]) =
        (fleet.gateways.first(), fleet.users.get(1), agents.as_slice())
    else {
        return Vec::new();
    };
    let (kaha, v1, json, business_id) = (&fleet.kaha_url, format!("{}/v1", gateway.url), JSON, business.id);
    let bearer = |variable: &str| format!("-H \"authorization: Bearer ${variable}\"");
    let (as_customer, as_agent, as_colleague) = (bearer("CUSTOMER"), bearer("AGENT"), bearer("COLLEAGUE"));
    let token =
        |name: &str| format!("$(curl -s {kaha}/dev/tokens {json} -d '{{\"name\":\"{name}\"}}' | {})", pick("token"));
    let text = |text: &str| format!("{json} -d '{{\"message_id\":\"{}\",\"text\":\"{text}\"}}'", Uuid::new_v4());
    let phone = |user_id: Uuid, bearer: &str| {
        format!(
            "curl -s -o /dev/null -X PUT {v1}/devices/{} {bearer} {json} \
             -d '{{\"platform\":\"fcm\",\"token\":\"{:064x}\",\"app_id\":\"{}\"}}'",
            Uuid::new_v4(),
            user_id.as_u128(),
            APP_IDS[1]
        )
    };
    let available = |bearer: &str| {
        format!("curl -s -X PUT {v1}/businesses/{business_id}/status {bearer} {json} -d '{{\"status\":\"available\"}}'")
    };
    vec![
        format!("# {} opens a conversation with {}, and writes", customer.name, business.name),
        format!("CUSTOMER={}", token(&customer.name)),
        format!(
            "CASE=$(curl -s {v1}/conversations {as_customer} {json} \
             -d '{{\"kind\":\"business\",\"business_id\":\"{business_id}\"}}' | {})",
            pick("conversation_id")
        ),
        format!("curl -s {v1}/conversations/$CASE/messages {as_customer} {}", text("Do you have tea?")),
        format!("# {}, an agent with a phone, is available and is assigned the case", agent.user.name),
        format!("AGENT={}", token(&agent.user.name)),
        phone(agent.user.id, &as_agent),
        available(&as_agent),
        format!("curl -s '{v1}/businesses/{business_id}/conversations?state=assigned' {as_agent}"),
        format!("curl -s {v1}/conversations/$CASE/messages {as_agent} {}", text("Yes, from Ilam.")),
        format!("# {} transfers the case to {}, another agent", agent.user.name, colleague.user.name),
        format!("COLLEAGUE={}", token(&colleague.user.name)),
        phone(colleague.user.id, &as_colleague),
        available(&as_colleague),
        format!("VERSION=$(curl -s {v1}/conversations/$CASE {as_agent} | {})", pick("version")),
        format!(
            "curl -s -X PUT {v1}/conversations/$CASE/agent {as_agent} {json} \
             -d \"{{\\\"user_id\\\":\\\"{}\\\",\\\"version\\\":$VERSION}}\"",
            colleague.user.id
        ),
        "# the other agent answers and resolves the case; the next message of the customer opens another one"
            .to_owned(),
        format!(
            "SEQ=$(curl -s {v1}/conversations/$CASE/messages {as_colleague} {} | {})",
            text("How much do you want?"),
            pick("seq")
        ),
        format!("curl -s {v1}/conversations/$CASE/resolve {as_colleague} {json} -d \"{{\\\"seq\\\":$SEQ}}\""),
        format!("curl -s {v1}/conversations/$CASE/messages {as_customer}"),
    ]
}
