//! The unit as systemd itself reads it: no setting misspelt, and an exposure of at most 1.2.

use std::process::{Command, Output};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/ledgerd.service");

/// Tenths, as `systemd-analyze` takes it.
const EXPOSURE_MAX: &str = "12";

fn systemd_analyze(arguments: &[&str]) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .arg(UNIT)
        // The complaints below are looked for in English.
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        .output()
        .expect("systemd-analyze should be at hand: install the package systemd")
}

#[test]
fn its_exposure_is_at_most_1_2() {
    let output = systemd_analyze(&["security", "--offline=true", "--threshold", EXPOSURE_MAX, "--no-pager"]);
    assert!(
        output.status.success(),
        "systemd-analyze rates the unit above {EXPOSURE_MAX} tenths, or cannot rate it:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// Its exit code says nothing here: it fails for a binary or a manual page that is not installed, and succeeds with a setting that
/// it ignores.
#[test]
fn no_line_of_it_is_ignored() {
    let output = systemd_analyze(&["verify"]);
    let complaints = String::from_utf8_lossy(&output.stderr);
    let ignored: Vec<&str> = complaints
        .lines()
        .filter(|line| ["Unknown", "Failed to parse", "ignoring"].iter().any(|sign| line.contains(sign)))
        .filter(|line| line.contains("ledgerd.service"))
        // The second `Type=` is for systemd 253 and newer, and older ones are meant to ignore it.
        .filter(|line| !line.contains("notify-reload"))
        .collect();
    assert!(ignored.is_empty(), "systemd would ignore parts of the unit:\n{}", ignored.join("\n"));
}
