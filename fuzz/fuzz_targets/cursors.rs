#![no_main]

use support::fuzz::{Cursors, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::<Cursors>(data));
