#![no_main]

use support::fuzz::{Envelope, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::<Envelope>(data));
