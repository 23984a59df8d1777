//! The units as systemd itself reads them: no setting misspelt, and an exposure of at most 1.2.

use std::process::{Command, Output};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/");
const SERVICES: &[&str] = &[
    "ledgerd.service",
    "ledgerd@.service",
    "ledgerd-console.service",
    "ledgerd-reconcile.service",
    "ledgerd-retention.service",
    "ledgerd-verify.service",
    "ledgerd-witness.service",
];
const TIMERS: &[&str] = &["ledgerd-reconcile.timer", "ledgerd-retention.timer", "ledgerd-verify.timer"];

/// Tenths, as `systemd-analyze` takes it.
const EXPOSURE_MAX: &str = "12";

fn systemd_analyze(arguments: &[&str], units: &[&str]) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .args(units.iter().map(|unit| format!("{FOLDER}{unit}")))
        // The complaints below are looked for in English.
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        .output()
        .expect("systemd-analyze should be at hand: install the package systemd")
}

#[test]
fn their_exposure_is_at_most_1_2() {
    for &unit in SERVICES {
        let arguments = ["security", "--offline=true", "--threshold", EXPOSURE_MAX, "--no-pager"];
        let output = systemd_analyze(&arguments, &[unit]);
        assert!(
            output.status.success(),
            "systemd-analyze rates {unit} above {EXPOSURE_MAX} tenths, or cannot rate it:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
    }
}

/// Its exit code says nothing here: it fails for a binary or a manual page that is not installed, and succeeds with a setting that
/// it ignores.
#[test]
fn no_line_of_them_is_ignored() {
    let units = [SERVICES, TIMERS].concat();
    let output = systemd_analyze(&["verify"], &units);
    let complaints = String::from_utf8_lossy(&output.stderr);
    let ignored: Vec<&str> = complaints
        .lines()
        .filter(|line| ["Unknown", "Failed to parse", "ignoring"].iter().any(|sign| line.contains(sign)))
        .filter(|line| units.iter().any(|unit| line.contains(unit)))
        // The second `Type=` is for systemd 253 and newer, and older ones are meant to ignore it.
        .filter(|line| !line.contains("notify-reload"))
        .collect();
    assert!(ignored.is_empty(), "systemd would ignore parts of the units:\n{}", ignored.join("\n"));
}

/// The template differs from the single service in what makes an instance, and in nothing else.
#[test]
fn an_instance_is_the_daemon_with_settings_and_state_of_its_own() {
    let settings = |unit: &str| {
        let text = std::fs::read_to_string(format!("{FOLDER}{unit}")).expect("it ships");
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let (single, template) = (settings(SERVICES[0]), settings(SERVICES[1]));
    let own: Vec<_> = template.iter().filter(|line| !single.contains(line)).map(String::as_str).collect();
    assert_eq!(
        own,
        [
            "Description=Audit ledger daemon, instance %i (NATS JetStream to PostgreSQL)",
            "ExecStart=/usr/bin/ledgerd --config /etc/ledgerd/%i.toml run",
            "StateDirectory=ledgerd/%i",
        ]
    );
    assert_eq!(single.len(), template.len());
}
