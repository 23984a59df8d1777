//! The units as systemd itself reads them: no setting misspelt, and an exposure of at most 1.2.

use std::process::{Command, Output};

const UNITS: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/ledgerd.service"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/ledgerd-witness.service"),
];

/// Tenths, as `systemd-analyze` takes it.
const EXPOSURE_MAX: &str = "12";

fn systemd_analyze(arguments: &[&str], unit: &str) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit)
        // The complaints below are looked for in English.
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        .output()
        .expect("systemd-analyze should be at hand: install the package systemd")
}

#[test]
fn their_exposure_is_at_most_1_2() {
    for unit in UNITS {
        let output = systemd_analyze(&["security", "--offline=true", "--threshold", EXPOSURE_MAX, "--no-pager"], unit);
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
    for unit in UNITS {
        let output = systemd_analyze(&["verify"], unit);
        let complaints = String::from_utf8_lossy(&output.stderr);
        let ignored: Vec<&str> = complaints
            .lines()
            .filter(|line| ["Unknown", "Failed to parse", "ignoring"].iter().any(|sign| line.contains(sign)))
            .filter(|line| unit.rsplit('/').next().is_some_and(|name| line.contains(name)))
            // The second `Type=` is for systemd 253 and newer, and older ones are meant to ignore it.
            .filter(|line| !line.contains("notify-reload"))
            .collect();
        assert!(ignored.is_empty(), "systemd would ignore parts of {unit}:\n{}", ignored.join("\n"));
    }
}
