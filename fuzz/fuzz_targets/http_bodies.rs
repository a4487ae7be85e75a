#![no_main]

use support::fuzz::{HttpBodies, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::<HttpBodies>(data));
