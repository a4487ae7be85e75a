//! What the hot path allocates: nothing but what leaves on the wire, and that goes into a buffer
//! which is there already.

use std::rc::Rc;

use cap::Cap;
use support::micro::{PIECES, Setup};

/// As in the server, with a count of all bytes that were ever asked for.
#[global_allocator]
static ALLOCATOR: Cap<mimalloc::MiMalloc> = Cap::new(mimalloc::MiMalloc, usize::MAX);

/// Steps of one round.
const STEPS: usize = 100;

/// Rounds: another thread of the setup may allocate during some of them.
const ROUNDS: usize = 20;

/// Bytes that a step of a piece asks for, on average.
fn bytes_a_step(setup: &Rc<Setup>, name: &str) -> usize {
    let piece = PIECES.iter().find(|piece| piece.name == name).expect("it is one");
    let mut step = (piece.prepare)(setup);
    // Buffers grow to their length.
    (0..STEPS).for_each(|_| step());
    let mut round = || {
        let before = ALLOCATOR.total_allocated();
        (0..STEPS).for_each(|_| step());
        ALLOCATOR.total_allocated() - before
    };
    (0..ROUNDS).map(|_| round()).min().unwrap_or(0) / STEPS
}

#[test]
fn a_request_that_is_answered_from_memory_allocates_nothing() {
    let setup = Rc::new(Setup::with_sessions(1000));
    let check = |name| assert_eq!(bytes_a_step(&setup, name), 0, "{name}");
    check("parse");
    check("diag.ping");
    check("MQTT, 20 diag.ping");
    check("touch 1,000 sessions");
    // So that it is known that something is counted at all.
    assert!(bytes_a_step(&setup, "property.publish") > 0);
}
