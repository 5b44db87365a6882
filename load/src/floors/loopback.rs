//! A round trip over loopback TCP between two threads that block: what any two processes of a machine need at least.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::{FRAME_BYTES, Stopwatch};
use crate::report::Spread;

pub(super) fn measure(length: Duration) -> Result<Spread> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    stream.set_nodelay(true)?;
    thread::scope(|scope| {
        let echo = scope.spawn(move || echo(&listener));
        let asked = ask(&mut stream, length);
        // Ends the echo, also if asking has failed.
        drop(stream);
        let echoed = echo.join().map_err(|_| anyhow!("the echo panicked"))?;
        asked.and_then(|spread| echoed.map(|()| spread))
    })
}

fn ask(stream: &mut TcpStream, length: Duration) -> Result<Spread> {
    let mut buffer = [7; FRAME_BYTES];
    let mut stopwatch = Stopwatch::for_next(length);
    while stopwatch.is_running() {
        let began = Instant::now();
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
        stopwatch.lap(began);
    }
    Ok(stopwatch.spread())
}

fn echo(listener: &TcpListener) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; FRAME_BYTES];
    loop {
        let count = stream.read(&mut buffer)?;
        let read = buffer.get(..count).unwrap_or_default();
        if read.is_empty() {
            return Ok(());
        }
        stream.write_all(read)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_counted() {
        let spread = measure(Duration::from_millis(10)).unwrap();
        assert!(spread.count > 0 && spread.p50 > 0.0, "{spread:?}");
    }
}
