#![no_main]

use support::fuzz::{ProxyHeader, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::<ProxyHeader>(data));
