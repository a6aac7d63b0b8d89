//! The serial of the zones: the time of the last change.

mod common;

use std::net::Ipv4Addr;

use serde_json::json;
use zone::{Options, Store};

fn change(store: &mut Store, number: u32) {
    let addr = Ipv4Addr::from(0x0a60_0001 + number);
    let object = json!({
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterIP": addr, "clusterIPs": [addr]},
    });
    common::apply(store, object);
}

#[test]
fn serials_never_run_ahead_of_the_clock() {
    let mut store = Store::new(Options::default());
    let begin = 1_795_333_000;
    let mut last = 0;
    for number in 0..10_000_u32 {
        // A thousand changes a second, each of them shown.
        let now = begin + u64::from(number / 1000);
        change(&mut store, number);
        let serial = store.publish(now).serial();
        assert!(serial >= last, "{serial} after {last}");
        assert_eq!(u64::from(serial), now);
        last = serial;
    }
    // What begins anew a second later is ahead of what ended.
    let mut again = Store::new(Options::default());
    change(&mut again, 1);
    assert!(again.publish(begin + 10).serial() > last);
}

#[test]
fn who_transferred_the_zone_within_a_second_learns_of_the_rest() {
    let mut store = Store::new(Options::default());
    change(&mut store, 1);
    assert_eq!(store.publish(100).serial(), 100);
    assert!(
        !store.due(101),
        "one change in its second needs no other serial"
    );
    change(&mut store, 2);
    assert_eq!(store.publish(100).serial(), 100);
    assert!(store.shares_serial());
    assert!(!store.due(100), "not before the clock goes on");
    assert!(store.due(101));
    assert_eq!(store.publish(101).serial(), 101);
    assert!(!store.due(102));
    // A clock that was put back takes no serial back.
    change(&mut store, 3);
    assert_eq!(store.publish(50).serial(), 101);
    assert!(store.due(102));
}

#[test]
fn serials_go_on_past_their_greatest() {
    let mut store = Store::new(Options::default());
    let greatest = u64::from(u32::MAX);
    change(&mut store, 1);
    assert_eq!(store.publish(greatest).serial(), u32::MAX);
    change(&mut store, 2);
    assert_eq!(store.publish(greatest + 2).serial(), 1);
}
