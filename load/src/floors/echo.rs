//! Echoes of a bare WebSocket server, on the library that the gateway uses: what frames cost without a chat behind.
//!
//! Server and client are threads, each with a runtime of one thread, so that they meet as two processes do.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
};

use super::{FRAME_BYTES, Stopwatch, rate};
use crate::report::Spread;

/// Frames on their way, when there are many. Far less than a socket's buffer, so that neither side blocks the other.
const IN_FLIGHT: u64 = 64;

#[derive(Debug)]
pub(super) struct Echo {
    pub one_at_a_time_us: Spread,
    pub per_second: f64,
}

pub(super) fn measure(length: Duration) -> Result<Echo> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let serving = scope.spawn(|| alone(serve(listener)));
        // Its end closes the connection, and with that the server.
        let asked = alone(ask(address, length));
        let served = serving.join().map_err(|_| anyhow!("the server panicked"))?;
        asked.and_then(|echo| served.map(|()| echo))
    })
}

fn alone<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    runtime::Builder::new_current_thread().enable_io().build()?.block_on(future)
}

async fn serve(listener: std::net::TcpListener) -> Result<()> {
    let (stream, _) = TcpListener::from_std(listener)?.accept().await?;
    stream.set_nodelay(true)?;
    // Both sides know what the handshake would say.
    let mut socket = WebSocket::after_handshake(stream, Role::Server);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            // Answered by the library already.
            OpCode::Close => return Ok(()),
            _ => socket.write_frame(Frame::binary(frame.payload)).await?,
        }
    }
}

async fn ask(address: SocketAddr, length: Duration) -> Result<Echo> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut client = Client(WebSocket::after_handshake(stream, Role::Client));
    let mut stopwatch = Stopwatch::for_next(length);
    while stopwatch.is_running() {
        let began = Instant::now();
        client.write().await?;
        client.read().await?;
        stopwatch.lap(began);
    }
    let per_second = client.keep_in_flight(length).await?;
    client.0.write_frame(Frame::close(1000, b"")).await?;
    Ok(Echo { one_at_a_time_us: stopwatch.spread(), per_second })
}

struct Client(WebSocket<TcpStream>);

impl Client {
    async fn write(&mut self) -> Result<()> {
        Ok(self.0.write_frame(Frame::binary(Payload::Owned(vec![7; FRAME_BYTES]))).await?)
    }

    async fn read(&mut self) -> Result<()> {
        let frame = self.0.read_frame().await?;
        ensure!(frame.opcode == OpCode::Binary, "the echo is no frame of bytes");
        Ok(())
    }

    /// How many a second come back.
    async fn keep_in_flight(&mut self, length: Duration) -> Result<f64> {
        let began = Instant::now();
        for _ in 0..IN_FLIGHT {
            self.write().await?;
        }
        let mut count = 0;
        while began.elapsed() < length {
            self.read().await?;
            self.write().await?;
            count += 1;
        }
        for _ in 0..IN_FLIGHT {
            self.read().await?;
        }
        Ok(rate(count + IN_FLIGHT, began.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_in_flight_are_faster_than_one_at_a_time() {
        let echo = measure(Duration::from_millis(50)).unwrap();
        assert!(echo.one_at_a_time_us.count > 0 && echo.one_at_a_time_us.p50 > 0.0, "{echo:?}");
        assert!(echo.per_second > 0.0 && echo.per_second.is_finite(), "{echo:?}");
    }
}
