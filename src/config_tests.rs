use super::*;
use std::collections::HashMap;
use std::io::Write as _;

fn load(toml: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
    file.write_all(toml.as_bytes()).expect("written");
    let mut variables = HashMap::new();
    for (key, value) in
        [("LEDGERD__DATABASE__URL", "postgres://h/d"), ("LEDGERD__NATS__URL", "nats://h")].iter().chain(environment)
    {
        variables.insert((*key).to_owned(), (*value).to_owned());
    }
    let reader = SettingsReader::of(Some(file.path()), Some(variables));
    reader.and_then(|reader| reader.config()).map_err(|error| error.to_string())
}

#[test]
fn two_urls_suffice() {
    let config = load("", &[]).expect("a configuration");
    assert_eq!(config.lanes, Lane::BUILT_IN);
    assert_eq!(config.shutdown_deadline, Duration::from_secs(30));
    assert_eq!(config.registry.extra_actors, ["ARCHITECT", "N8N_SANITIZER"]);
}

#[test]
fn a_variable_with_one_underscore_is_told_its_name() {
    let says = load("", &[("LEDGERD_DATABASE_URL", "postgres://elsewhere/d")]).expect_err("it would be ignored");
    assert!(says.contains("write LEDGERD__DATABASE__URL") && !says.contains("elsewhere"), "{says}");
    load("", &[("LEDGERD_TEST_SOMETHING", "1")]).expect("others may be called so");
}

#[test]
fn the_environment_goes_before_the_file() {
    let config = load(
        "[limits]\nnesting_max = 7\n[pipeline]\nlanes = ['EXEC']",
        &[("LEDGERD__LIMITS__NESTING_MAX", "9"), ("LEDGERD__PIPELINE__LANES", "SEC, ERR")],
    )
    .expect("a configuration");
    assert_eq!(config.judging.nesting_max, 9);
    assert_eq!(config.lanes, [Lane::Sec, Lane::Err]);
}

#[test]
fn an_error_names_the_key_the_value_and_the_place() {
    for (toml, environment, says) in [
        ("[shutdown]\ndeadline = '30'", None, &["shutdown.deadline = \"30\"", ".toml", "unit"][..]),
        ("[shutdown]\ndeadline = 30", None, &["shutdown.deadline = \"30\"", "unit"]),
        ("[databse]\nurl = 'x'", None, &["databse.url", ".toml", "no such section"]),
        ("[database]\nwriter = 3", None, &["database.writer = 3", ".toml", "database.writers"]),
        ("", Some(("LEDGERD__DATABASE__WRITERS", "many")), &["database.writers = \"many\"", "environment", "1 to 16"]),
        ("", Some(("LEDGERD__NATS__STREM", "X")), &["nats.strem = X", "environment"]),
        ("[pipeline]\nlanes = ['EXEC', 'FOO']", None, &["pipeline.lanes", "\"FOO\" is not a lane"]),
        ("[audit]\nevent_id = 'loose'", None, &["audit.event_id = \"loose\"", "strict, any"]),
        ("[http]\nlisten = '9464'", None, &["http.listen = \"9464\"", "127.0.0.1:9464"]),
        ("[http]\nconnections_max = 0", None, &["http.connections_max = \"0\"", "8 to 10000"]),
        ("[http]\nheaders_timeout = '1h'", None, &["http.headers_timeout = \"1h\"", "at most 1m"]),
        ("[http", None, &[".toml"]),
    ] {
        let error = load(toml, environment.as_slice()).expect_err(toml);
        assert!(says.iter().all(|part| error.contains(part)), "{toml}: {error}");
    }
}

#[test]
fn a_url_is_never_shown() {
    let config = load("", &[("LEDGERD__DATABASE__URL", "postgres://u:hunter2@h/d")]).expect("a configuration");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn webhooks_are_served_to_somebody_or_not_at_all() {
    assert!(load("", &[]).expect("a configuration").webhooks.is_none());
    let hash = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
    let tokens = format!("{hash} RXY-CEO BRM-CTO, {} N8N_SANITIZER", hash.replace('5', "6"));
    let config = load("", &[("LEDGERD__WEBHOOKS__TOKENS", &tokens)]).expect("a configuration");
    let webhooks = config.webhooks.expect("somebody is let in");
    assert_eq!((webhooks.patience, webhooks.requests_max, webhooks.listen), (Duration::from_secs(4), 64, None));
    let everybody = format!("{hash} *");
    assert!(load("", &[("LEDGERD__WEBHOOKS__TOKENS", &*everybody)]).expect("a configuration").webhooks.is_some());
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "nats://webhooks:rotated@h").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let of_file = [("LEDGERD__WEBHOOKS__TOKENS", &*tokens), ("LEDGERD__WEBHOOKS__NATS_URL_FILE", path)];
    let webhooks = load("", &of_file).expect("a configuration").webhooks.expect("somebody is let in");
    assert_eq!(webhooks.nats_url.as_deref(), Some("nats://webhooks:rotated@h"));
    let error = load("", &[("LEDGERD__WEBHOOKS__TOKENS", "hunter2 RXY-CEO")]).expect_err("no hash");
    assert!(error.contains("webhooks.tokens") && error.contains("place 1") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_profile_sets_defaults_and_what_is_written_down_wins() {
    let strict = load("", &[]).expect("a configuration");
    assert_eq!((strict.profile.name, &strict.profile.changes[..]), ("strict", &[][..]));
    let hegemon = load("profile = 'hegemon'", &[]).expect("a configuration");
    assert!(hegemon.judging.any_event_id && hegemon.judging.stamp_missing_timestamp);
    assert!(hegemon.judging.distinct_repeated_ids);
    assert_eq!(hegemon.registry.actions_extra, [PathBuf::from("registry/hegemon.yaml")]);
    assert!(hegemon.profile.changes.len() == 4 && hegemon.profile.changes.iter().all(|it| it.overridden.is_none()));

    let in_environment = [("LEDGERD__PROFILE", "hegemon"), ("LEDGERD__AUDIT__REPEATED_ID", "conflict")];
    let mixed = load("[audit]\nmissing_timestamp = 'reject'", &in_environment).expect("a configuration");
    assert!(mixed.judging.any_event_id && !mixed.judging.stamp_missing_timestamp);
    assert!(!mixed.judging.distinct_repeated_ids);
    let overridden = |key: &str| {
        let change = mixed.profile.changes.iter().find(|change| change.key == key).expect("it is changed");
        change.overridden.clone().unwrap_or_default()
    };
    assert!(overridden("audit.missing_timestamp").contains(".toml"));
    assert_eq!(overridden("audit.repeated_id"), "\"conflict\" in the environment");
    assert_eq!(overridden("audit.event_id"), "");
    // As strict as the specification, although the profile is not.
    assert!(
        load("profile = 'hegemon'\n[registry]\nactions_extra_files = []", &[])
            .expect("good")
            .registry
            .actions_extra
            .is_empty()
    );

    let error = load("profile = 'lenient'", &[]).expect_err("there is none");
    assert!(error.contains("profile = \"lenient\"") && error.contains("strict, hegemon"), "{error}");
}

#[test]
fn an_unknown_model_is_rejected_or_has_a_tier() {
    let tier = |value| load(&format!("[tokens]\nunknown_model = '{value}'"), &[]);
    assert_eq!(tier("PREMIUM").expect("good").judging.model_tiers.tier_of("a-new-model"), Some("PREMIUM"));
    assert_eq!(tier("reject").expect("good").judging.model_tiers.tier_of("a-new-model"), None);
    assert!(tier("premium").expect_err("no tier").contains("tokens.unknown_model"));
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn targets_of_notifications_are_tables_in_the_file_or_text_in_the_environment() {
    assert!(load("", &[]).expect("a configuration").notify.is_empty());
    let toml = format!(
        "[[notify]]\nname = 'n8n'\nurl = 'https://n8n.example/webhook/ledger'\nevents = ['budget', 'reject']\nsecret = '{SECRET}'\n\
         [[notify]]\nurl = 'http://siem.example:8080/'\nevents = ['integrity']\nsecret = '{SECRET} {SECRET}'\ntimeout = '2s'\n\
         give_up_after = '1h'"
    );
    let targets = load(&toml, &[]).expect("a configuration").notify;
    let names: Vec<_> = targets.iter().map(|target| (target.name.as_str(), target.secrets.len())).collect();
    assert_eq!(names, [("n8n", 1), ("siem.example", 2)]);
    assert_eq!((targets[0].timeout, targets[1].timeout), (Duration::from_secs(15), Duration::from_secs(2)));
    assert!(targets[0].events.contains(&NotifyEvent::Reject) && !targets[0].events.contains(&NotifyEvent::Stall));
    assert!(!format!("{targets:?}").contains("webhook/ledger"));

    let text = format!("[{{ url = \"https://h/\", events = [\"stall\"], secret = \"{SECRET}\" }}]");
    let targets = load("", &[("LEDGERD__NOTIFY", &text)]).expect("a configuration").notify;
    assert_eq!(targets[0].name, "h");
}

#[test]
fn what_is_wrong_with_a_target_is_named_and_its_secret_is_not_shown() {
    let table = |lines: &str| format!("[[notify]]\n{lines}");
    let good = format!("url = 'https://h/'\nevents = ['reject']\nsecret = '{SECRET}'");
    for (toml, says) in [
        (table(&format!("{good}\nevent = 'x'")), &["notify[1]", ".toml", "unknown field `event`", "secret_file"][..]),
        (format!("{}\n{}", table(&good), table(&good)), &["notify[2].name", "two targets h"]),
        (table("url = 'ftp://h/'\nevents = ['reject']"), &["notify[1].url", "https://"]),
        (table("url = 'https://h/'\nevents = ['rejects']"), &["notify[1].events", "budget, reject, blocked"]),
        (table("url = 'https://h/'\nevents = []"), &["notify[1].events"]),
        (table("events = ['reject']"), &["notify[1]", "url"]),
        (table("url = 'https://h/'\nevents = ['reject']"), &["notify[1].secret", "secret_file"]),
        (table("url = 'https://h/'\nevents = ['reject']\nsecret = 'hunter2'"), &["notify[1].secret", "whsec_"]),
        (table("url = 'https://h/'\nevents = ['reject']\nsecret = ['hunter2']"), &["notify[1]", "secret"]),
        (table("url = 'https://h/'\nevents = 'hunter2'\nsecret = 'x'"), &["notify[1]", "events"]),
        (table("url = 'https://h/'\nevents = [['hunter2']]\nsecret = 'x'"), &["notify[1]"]),
        (table(&format!("{good}\ntimeout = '5'")), &["notify[1].timeout", "unit"]),
        ("notify = 'hunter2'".to_owned(), &["notify", "[[notify]]"]),
        ("notify = ['hunter2']".to_owned(), &["notify", "[[notify]]"]),
        ("[notify]\nurl = 'hunter2'".to_owned(), &["notify.url", "[[notify]]"]),
    ] {
        let error = load(&toml, &[]).expect_err(&toml);
        assert!(says.iter().all(|part| error.contains(part)), "{toml}: {error}");
        assert!(!error.contains("hunter2") && !error.contains(SECRET), "{toml}: {error}");
    }
    let error = load("", &[("LEDGERD__NOTIFY", "[{ secret = hunter2")]).expect_err("no TOML");
    assert!(error.contains("notify in the environment") && !error.contains("hunter2"), "{error}");
}
