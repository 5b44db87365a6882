//! Looks at what a program says about its settings, for the tests of all programs.

use clap::{Arg, ArgAction, Command};

/// What a number, an address or a text may be counted or written in.
const UNITS: [&str; 25] = [
    "ADDRESS:PORT",
    "BASE64",
    "BYTES",
    "CONNECTIONS",
    "CONTACT",
    "CONVERSATIONS",
    "DAYS",
    "FILE",
    "FILES",
    "FILTER",
    "FORMAT",
    "HANDSHAKES/S",
    "ID",
    "IDS",
    "MESSAGES/S",
    "MILLISECONDS",
    "MODE",
    "NAME",
    "NETWORKS",
    "ORIGINS",
    "REQUESTS/S",
    "SECONDS",
    "SERVERS",
    "TEXT",
    "URL",
];

/// Checks that `--help` says of every setting what it is, in which unit, which environment variable sets it, what it is if it
/// isn't set, and what follows from it.
///
/// # Panics
/// If something is missing, with the setting's name.
pub fn assert_complete(mut program: Command) {
    program.build();
    program.clone().debug_assert();
    let page = program.clone().render_long_help().to_string();
    for argument in program.get_arguments().filter(|argument| !is_switch(argument)) {
        assert_described(argument);
        let option = format!("--{}", argument.get_long().expect("every setting is an option"));
        assert!(page.contains(&option), "{option} is hidden");
    }
    for command in program.get_subcommands() {
        assert!(command.get_about().is_some(), "{command} is not described");
        command.get_arguments().filter(|argument| !is_switch(argument)).for_each(assert_described);
    }
}

/// What a person says to the program at once, and nobody leaves set.
fn is_switch(argument: &Arg) -> bool {
    matches!(argument.get_id().as_str(), "help" | "version" | "check_config" | "yes" | "day")
}

fn assert_described(argument: &Arg) {
    let name = argument.get_id();
    let variable = argument.get_env().unwrap_or_else(|| panic!("{name} has no environment variable")).to_string_lossy();
    assert_eq!(
        Some(variable.to_lowercase().replace('_', "-").as_str()),
        argument.get_long().map(|long| format!("chat-{long}")).as_deref(),
        "the option and the variable have the same name"
    );
    let (short, long) = (argument.get_help(), argument.get_long_help());
    let short = short.unwrap_or_else(|| panic!("{variable} is not described")).to_string();
    let long = long.unwrap_or_else(|| panic!("{variable} says nothing of what follows from it")).to_string();
    assert!(long.contains("\n\n"), "{variable} says nothing of what follows from it: {long}");
    assert!(argument.get_help_heading().is_some(), "{variable} stands under no heading");
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        return;
    }
    let unit = argument.get_value_names().and_then(<[_]>::first).map(ToString::to_string).unwrap_or_default();
    assert!(UNITS.contains(&unit.as_str()), "{variable} is given in {unit:?}, which is no unit");
    let is_explained = ["equired", "ptional", "Without", "instead of"].iter().any(|word| long.contains(word));
    assert!(
        is_explained || !argument.get_default_values().is_empty(),
        "{variable} has no default, and doesn't say whether it is required or optional: {short}"
    );
    let is_secret = ["URL", "BASE64", "TEXT"].contains(&unit.as_str()) && argument.get_default_values().is_empty();
    assert!(!is_secret || argument.is_hide_env_values_set(), "{variable} may hold a secret, and --help shows it");
}
