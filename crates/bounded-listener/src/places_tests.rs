use super::*;

const LIMITS: Limits =
    Limits { connections_max: 4, connections_per_address_max: 3, headers_timeout: Duration::from_secs(10) };

struct Held {
    place: Place,
    ended: oneshot::Receiver<()>,
}

impl Held {
    fn is_open(&mut self) -> bool {
        self.ended.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }
}

fn take(places: &Arc<Places>, address: &str) -> Held {
    let (place, ended) = places.take(address.parse().expect("an address"));
    Held { place, ended }
}

fn open(held: &mut [Held]) -> Vec<bool> {
    held.iter_mut().map(Held::is_open).collect()
}

async fn a_second() {
    tokio::time::advance(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn the_address_that_holds_most_gives_up_the_connection_that_waited_longest() {
    let places = Places::new(LIMITS);
    let mut held = Vec::new();
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.3"] {
        held.push(take(&places, address));
        a_second().await;
    }
    assert_eq!(open(&mut held), [true, false, true, true, true]);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_at_its_limit_gives_up_one_of_its_own() {
    let places = Places::new(Limits { connections_max: 100, ..LIMITS });
    let mut held = Vec::new();
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"] {
        held.push(take(&places, address));
        a_second().await;
    }
    assert_eq!(open(&mut held), [false, true, true, true, true]);
}

#[tokio::test(start_paused = true)]
async fn whoever_was_answered_leaves_before_whoever_asks() {
    let places = Places::new(LIMITS);
    let mut held: Vec<Held> = Vec::new();
    for _ in 0..3 {
        held.push(take(&places, "10.0.0.1"));
        a_second().await;
    }
    // What was not written yet would be lost with its connection.
    for answered in &held[1..] {
        answered.place.is_answering();
        answered.place.has_answered();
    }
    held[1].place.has_flushed();
    held.push(take(&places, "10.0.0.1"));
    assert_eq!(open(&mut held), [true, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn headers_are_bounded_and_a_body_is_not_counted_as_such() {
    let places = Places::new(LIMITS);
    let asking = take(&places, "10.0.0.1");
    asking.place.has_read(HEADERS_BYTES_MAX).expect("as much as is allowed");
    assert!(asking.place.has_read(1).is_err());
    let sending = take(&places, "10.0.0.1");
    sending.place.is_answering();
    sending.place.has_read(HEADERS_BYTES_MAX * 2).expect("a body");
}

#[tokio::test(start_paused = true)]
async fn a_network_of_ipv6_is_one_address() {
    let places = Places::new(Limits { connections_max: 100, ..LIMITS });
    let mut held: Vec<Held> = (1..=4).map(|host| take(&places, &format!("2001:db8::{host}"))).collect();
    held.push(take(&places, "2001:db8:0:1::1"));
    assert_eq!(open(&mut held).iter().filter(|open| !**open).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_token_is_never_interrupted_nor_counted_and_its_connection_leaves_last() {
    let places = Places::new(LIMITS);
    let mut known = take(&places, "10.0.0.1");
    known.place.is_admitted();
    a_second().await;
    let mut others: Vec<Held> = (0..4).map(|_| take(&places, "10.0.0.1")).collect();
    assert_eq!((known.is_open(), open(&mut others).iter().filter(|open| **open).count()), (true, 3));
    // Between two requests it is one of them again.
    known.place.has_answered();
    assert_eq!((known.is_open(), open(&mut others).iter().filter(|open| **open).count()), (true, 2));
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_too_long_is_ended() {
    let places = Places::new(LIMITS);
    let mut idle = take(&places, "10.0.0.4");
    idle.place.is_answering();
    idle.place.has_answered();
    idle.place.has_flushed();
    let mut silent = take(&places, "10.0.0.1");
    let mut slow = take(&places, "10.0.0.2");
    let mut answered = take(&places, "10.0.0.3");
    answered.place.has_read(1).expect("few");
    answered.place.is_answering();
    for second in 0..40 {
        slow.place.has_read(1).expect("few");
        answered.place.has_written();
        places.end_the_slow();
        assert_eq!(slow.is_open(), second < 10, "after {second} s");
        assert_eq!(silent.is_open(), second < 10, "after {second} s");
        assert_eq!(idle.is_open(), second < 30, "after {second} s");
        assert!(answered.is_open());
        a_second().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ended_leaves_nothing_behind() {
    let places = Places::new(LIMITS);
    for _ in 0..100 {
        drop(take(&places, "10.0.0.1"));
    }
    assert!(places.lock().by_id.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_may_last_and_must_not_fall_silent() {
    let places = Places::new(LIMITS);
    let mut held = vec![take(&places, "10.0.0.1"), take(&places, "10.0.0.2")];
    for each in &held {
        each.place.is_answering();
        each.place.is_streaming();
        each.place.has_flushed();
    }
    for _ in 0..300 {
        held[0].place.has_written();
        a_second().await;
        places.end_the_slow();
    }
    assert_eq!(open(&mut held), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_leaves_after_whoever_was_answered_and_before_whoever_asks() {
    let places = Places::new(LIMITS);
    let mut held = Vec::new();
    for number in 0..3 {
        held.push(take(&places, "10.0.0.1"));
        a_second().await;
        match number {
            0 => held[0].place.is_streaming(),
            1 => {
                held[1].place.has_answered();
                held[1].place.has_flushed();
            }
            _ => {}
        }
    }
    held.push(take(&places, "10.0.0.1"));
    assert_eq!(open(&mut held), [true, false, true, true]);
    held.push(take(&places, "10.0.0.1"));
    assert_eq!(open(&mut held), [false, false, true, true, true]);
}
