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
    let reader = Reader::of(Some(file.path()), Some(variables));
    reader.and_then(|reader| reader.config()).map_err(|error| error.to_string())
}

#[test]
fn two_urls_suffice() {
    let config = load("", &[]).expect("a configuration");
    assert_eq!(config.lanes, Lane::ALL);
    assert_eq!(config.shutdown_deadline, Duration::from_secs(30));
    assert_eq!(config.registry.extra_actors, ["ARCHITECT", "N8N_SANITIZER"]);
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
        ("[audit]\nevent_id = 'loose'", None, &["audit.event_id = \"loose\"", "strict, any_suffix"]),
        ("[http]\nlisten = '9464'", None, &["http.listen = \"9464\"", "127.0.0.1:9464"]),
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
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "nats://webhooks:rotated@h").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let of_file = [("LEDGERD__WEBHOOKS__TOKENS", &*tokens), ("LEDGERD__WEBHOOKS__NATS_URL_FILE", path)];
    let webhooks = load("", &of_file).expect("a configuration").webhooks.expect("somebody is let in");
    assert_eq!(webhooks.nats_url.as_deref(), Some("nats://webhooks:rotated@h"));
    let error = load("", &[("LEDGERD__WEBHOOKS__TOKENS", "hunter2 RXY-CEO")]).expect_err("no hash");
    assert!(error.contains("webhooks.tokens") && error.contains("place 1") && !error.contains("hunter2"), "{error}");
}
