//! The console shows what is recorded, to people and to programs.

use crate::support::console::Console;
use crate::support::events::next_event;
use crate::support::ledger::check_ledger;
use crate::support::published::Published;
use crate::support::world::World;

#[tokio::test]
async fn what_was_recorded_stands_in_the_timeline() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let event = next_event("EXEC");
    let id = event.event_id().to_owned();
    published.publish(&world.publisher, event.good()).await;
    check_ledger(&world, &published).await;

    let console = Console::start(&world.environment).await;
    assert!(console.page("/timeline").await.contains("EXEC"));
    assert_eq!(console.api("/timeline?lane=EXEC").await["lines"][0]["record_id"], id.as_str());
}
