//! A new prefix of audit events is an entry of a registry file and a run of `ledgerd setup --apply`.

use crate::support::daemon::text_of;
use crate::support::events::event;
use crate::support::ledger::check_ledger;
use crate::support::process::scratch_folder;
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use tempfile::TempDir;

const FILE: &str = "
prefixes:
  AUD: {actors: [VRA-CFO], description: Audits of ventures}
groups:
  - name: Audits
    actors: [VRA-CFO]
    actions:
      AUDIT_FINISHED: {outcomes: [SUCCESS, FAILURE]}
";
const SETTING: &str = "LEDGERD__REGISTRY__ACTIONS_EXTRA_FILES";

/// A world that was set up before the specification was amended; then everybody has the file.
async fn amended(file: &str) -> (World, TempDir) {
    let mut world = World::start().await;
    let folder = scratch_folder("registry");
    let path = folder.path().join("amended.yaml");
    std::fs::write(&path, file).expect("ours");
    for environment in [&mut world.environment, &mut world.operator] {
        environment.insert(SETTING.to_owned(), path.display().to_string());
    }
    (world, folder)
}

#[tokio::test]
async fn a_prefix_of_a_registry_file_is_served_once_setup_has_applied_it() {
    let (world, _folder) = amended(FILE).await;
    let differs = world.ledgerd(&["setup"]).await;
    assert_eq!(differs.status.code(), Some(3), "{}", text_of(&differs));
    assert!(text_of(&differs).contains("ledger.AUD.*"), "{}", text_of(&differs));
    let applied = world.ledgerd_ok(&["setup", "--apply"]).await;
    assert!(applied.contains("changed: stream LEDGER: subjects"), "{applied}");
    assert!(applied.contains("consumer ledgerd-AUD: as it must be"), "{applied}");
    assert!(applied.contains("$JS.API.CONSUMER.MSG.NEXT.LEDGER.ledgerd-AUD"), "{applied}");

    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, event("AUD", "VRA-CFO", 1).good()).await;
    published.publish(&world.publisher, event("AUD", "VRA-CFO", 1).again()).await;
    published
        .publish(
            &world.publisher,
            event("AUD", "VRA-CFO", 2).with("event_id", "SEC-VRA-CFO-1750000000000").bad("prefix_mismatch"),
        )
        .await;
    published.publish(&world.publisher, event("EXEC", "BRM-CTO", 3).good()).await;
    check_ledger(&world, &published).await;
    daemon.says("AUD: owned").await;
    let status = world.ledgerd_ok(&["status"]).await;
    assert!(status.lines().any(|line| line.starts_with("AUD")), "{status}");
    world.ledgerd_ok(&["verify"]).await;
    world.ledgerd_ok(&["reconcile"]).await;
}

#[tokio::test]
async fn the_accounts_of_its_actors_import_it_and_no_others_do() {
    let (world, _folder) = amended(FILE).await;
    let accounts = world.ledgerd_ok(&["nats-accounts"]).await;
    let services: Vec<&str> =
        accounts.lines().filter(|line| line.contains("subject: \"ledger.AUD.")).map(str::trim).collect();
    assert!(services.iter().any(|line| line.contains("\"ledger.AUD.VRA-CFO\"")), "{services:?}");
    // As with actions, what an agent may do, its sub-agents may.
    assert!(services.iter().all(|line| line.contains("\"ledger.AUD.VRA-")), "{services:?}");
}

#[tokio::test]
async fn setup_takes_no_subject_away_because_a_file_cannot_be_read() {
    let (mut world, folder) = amended(FILE).await;
    world.ledgerd_ok(&["setup", "--apply"]).await;
    let missing = folder.path().join("elsewhere.yaml").display().to_string();
    world.operator.insert(SETTING.to_owned(), missing);
    let output = world.ledgerd(&["setup", "--apply"]).await;
    assert_eq!(output.status.code(), Some(78), "{}", text_of(&output));
    assert!(text_of(&output).contains("elsewhere.yaml"), "{}", text_of(&output));
    world.publisher.publish("ledger.AUD.VRA-CFO", event("AUD", "VRA-CFO", 1).payload()).await;
}

#[tokio::test]
async fn a_prefix_that_is_none_is_refused_by_name() {
    for (prefix, why) in [("EXEC", "specification's own"), ("aud", "1 to 16 of A-Z 0-9"), ("A-B", "1 to 16 of A-Z 0-9")]
    {
        let (world, _folder) = amended(&FILE.replace("AUD:", &format!("{prefix}:"))).await;
        let output = world.ledgerd(&["nats-accounts"]).await;
        assert_eq!(output.status.code(), Some(78), "{}", text_of(&output));
        let text = text_of(&output);
        assert!(text.contains("amended.yaml") && text.contains(prefix) && text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn a_prefix_that_setup_has_not_applied_yet_holds_up_no_other_lane() {
    let (world, _folder) = amended(FILE).await;
    let daemon = world.spawn_daemon();
    let mut published = Published::default();
    published.publish(&world.publisher, event("EXEC", "BRM-CTO", 1).good()).await;
    check_ledger(&world, &published).await;
    daemon.says("stream LEDGER differs from nats/").await;
}

/// Whoever publishes under it before the daemon has the file must not be rejected for that.
#[tokio::test]
async fn what_comes_under_a_prefix_before_the_daemon_knows_it_waits_in_the_stream() {
    let (mut world, _folder) = amended(FILE).await;
    world.ledgerd_ok(&["setup", "--apply"]).await;
    let file = world.environment.remove(SETTING).expect("it was set");
    let mut daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish(&world.publisher, event("AUD", "VRA-CFO", 1).good()).await;
    published.publish(&world.publisher, event("EXEC", "BRM-CTO", 2).good()).await;
    let counted = "select count(*) from ledger.counted where through = 2";
    eventually("both are counted", SOON, async || when(world.database.count(counted).await == 1, String::new)).await;
    assert_eq!(world.database.count("select count(*) from ledger.entry where subject like 'ledger.AUD.%'").await, 0);
    daemon.sigterm();
    daemon.wait_exit().await;

    world.environment.insert(SETTING.to_owned(), file);
    let _daemon = world.daemon().await;
    check_ledger(&world, &published).await;
}
