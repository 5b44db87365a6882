use super::*;

const CONVERSATION: &str = "df1157d9-66bd-4d60-bca6-d9e8e5ce4cb9";

/// As a server would send it.
fn from_server(payloads: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for payload in payloads {
        let mut one = Vec::new();
        frame::write(Opcode::Text, &mut one, |out| out.extend_from_slice(payload.as_bytes()));
        let header = one.len() - payload.len();
        one.drain(header - 4..header);
        one[1] &= 0x7f;
        bytes.extend(one);
    }
    bytes
}

fn push(seq: u64, text: &str) -> String {
    format!(
        r#"42["message",{{"conversation_id":"{CONVERSATION}","message_id":"m","sender_id":"s","seq":{seq},"sent_at":5,"text":"{text}"}}]"#
    )
}

fn session(position: u64) -> Session {
    Session::new(CONVERSATION, Some(Position(position)))
}

fn said(session: &mut Session, payloads: &[&str]) -> (Vec<String>, Vec<u8>, Result<()>) {
    let (mut heard, mut out) = (Vec::new(), Vec::new());
    let bytes = from_server(payloads);
    let used = session.read(&bytes, &mut out, &mut |one| heard.push(format!("{one:?}")));
    (heard, out, used.map(|used| assert_eq!(used, bytes.len())))
}

/// What the client wrote, without its frame; short ones only.
fn payload(out: &[u8]) -> &str {
    std::str::from_utf8(&out[6..]).unwrap()
}

#[test]
fn a_message_is_an_event_that_asks_for_an_answer() {
    let message_id = Uuid::from_u128(7);
    let outgoing = Outgoing { conversation: "c", reference: 12, message_id, text: "a \"b\"", is_repeat: false };
    let mut out = Vec::new();
    session(0).send(&outgoing, &mut out);
    let wanted =
        r#"4212["send",{"conversation_id":"c","message_id":"00000000-0000-0000-0000-000000000007","text":"a \"b\""}]"#;
    assert_eq!(payload(&out), wanted);
}

#[test]
fn answers_and_messages_are_heard() {
    let push = push(4, "hi \\\"you\\\"");
    let mut session = session(2);
    let (heard, out, used) = said(
        &mut session,
        &[
            r#"437[{"seq":3,"sent_at":1}]"#,
            r#"438[{"error":"forbidden"}]"#,
            &push,
            r#"42["other",{"conversation_id":"","seq":0,"text":""}]"#,
        ],
    );
    assert_eq!(
        heard,
        [
            "Accepted { reference: 7 }",
            r#"Rejected { reference: Some(8), reason: "forbidden" }"#,
            r#"Message { sequence: Some(4), text: "hi \"you\"" }"#,
        ]
    );
    assert!(out.is_empty());
    used.unwrap();
    assert_eq!(session.place(), Some(Position(4)));
}

#[test]
fn a_ping_is_answered_and_an_end_is_an_error() {
    let (_, out, used) = said(&mut session(0), &["2"]);
    used.unwrap();
    assert_eq!(payload(&out), "3");
    for end in ["41", "1"] {
        let (_, _, used) = said(&mut session(0), &[end]);
        assert_eq!(used.unwrap_err().to_string(), "closed by the server");
    }
}

#[test]
fn the_place_is_before_the_first_hole() {
    let mut session = session(10);
    for (seen, place) in [(12, 10), (14, 10), (12, 10), (9, 10), (11, 12), (13, 14), (13, 14)] {
        let push = push(seen, "x");
        said(&mut session, &[&push]).2.unwrap();
        assert_eq!(session.place(), Some(Position(place)), "after {seen}");
    }
    assert!(session.ahead.is_empty());
}

#[test]
fn what_was_missed_is_heard_and_more_of_it_is_asked_for() {
    let mut session = session(10);
    let missed = |seq, has_more| {
        format!(
            r#"43{SYNC}[{{"positions":{{}},"messages":[{{"conversation_id":"{CONVERSATION}","seq":{seq},"message_id":"m","sender_id":"s","sent_at":1,"text":"x"}}],"has_more":{has_more}}}]"#
        )
    };
    let (heard, out, used) = said(&mut session, &[&missed(11, true)]);
    used.unwrap();
    assert_eq!(heard, [r#"Message { sequence: Some(11), text: "x" }"#]);
    assert_eq!(payload(&out), format!(r#"42{SYNC}["sync",{{"since":{{"{CONVERSATION}":11}}}}]"#));
    let (_, out, _) = said(&mut session, &[&missed(12, false)]);
    assert!(out.is_empty());
}

#[test]
fn a_new_client_takes_its_position_from_the_server() {
    let answer = r#"{"positions":{"a":5},"messages":[],"has_more":false}"#;
    let synced: Synced<'_> = serde_json::from_str(answer).unwrap();
    assert_eq!((synced.position("a").unwrap(), synced.position("b").unwrap()), (5, 0));
    let mut session = Session::new("a", None);
    session.see(6);
    assert_eq!(session.place(), None);
}
