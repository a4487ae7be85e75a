//! Times of the pieces of the server's work: `cargo bench --bench micro`.
//!
//! Each is what the server does between the bytes of a request and those of the reply, without
//! sockets, with a store in memory. The setup is that of the performance goals: 100,000 sessions in
//! 200 organisations, 5,000 of them in that of the device that asks.

use std::rc::Rc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use support::micro::{PAGE, PIECES, QUERIES, Setup, Step, expiry, search};

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SESSIONS: usize = 100_000;

/// Things that are searched.
const THINGS: usize = 100_000;

/// A page costs the same with so many.
const FEWER_SESSIONS: usize = 10_000;

fn steps(criterion: &mut Criterion) {
    let setup = Rc::new(Setup::with_sessions(SESSIONS));
    let fewer = Rc::new(Setup::with_sessions(FEWER_SESSIONS));
    let mut group = criterion.benchmark_group("micro");
    for piece in PIECES {
        group.bench_function(piece.name, |bencher| bencher.iter((piece.prepare)(&setup)));
        if piece.name == PAGE {
            let id = BenchmarkId::new(PAGE, FEWER_SESSIONS);
            group.bench_function(id, |bencher| bencher.iter((piece.prepare)(&fewer)));
        }
    }
    group.finish();
}

fn expiries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("micro");
    group.sample_size(10).warm_up_time(Duration::from_millis(1));
    group.bench_function("expire 100,000 sessions", |bencher| {
        let expire = |mut step: Step| {
            step();
            step
        };
        bencher.iter_batched(|| expiry(SESSIONS), expire, BatchSize::PerIteration);
    });
    group.finish();
}

fn searches(criterion: &mut Criterion) {
    let setup = Rc::new(Setup::with_things(THINGS));
    let mut group = criterion.benchmark_group("search.omni");
    group.sample_size(20);
    for query in QUERIES {
        group.bench_function(query, |bencher| bencher.iter(search(&setup, query)));
    }
    group.finish();
}

criterion_group!(benches, steps, expiries, searches);
criterion_main!(benches);
