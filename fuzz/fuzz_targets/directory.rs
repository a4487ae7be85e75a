#![no_main]

use support::fuzz::{DirectorySteps, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::<DirectorySteps>(data));
