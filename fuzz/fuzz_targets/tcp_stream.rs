#![no_main]

use support::fuzz::{TcpStreams, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::<TcpStreams>(data));
