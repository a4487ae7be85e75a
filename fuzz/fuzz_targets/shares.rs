#![no_main]

use support::fuzz::{SharesSteps, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::<SharesSteps>(data));
