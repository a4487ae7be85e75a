#![no_main]

use support::fuzz::{Restore, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::<Restore>(data));
