//! Accepting connections, within limits of number and time, until the server is asked to stop and has answered what it
//! accepted.

use crate::{Result, state::Shared};
use axum::Router;
use hyper::server::conn::http1::Builder;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{Signal, SignalKind, signal},
    sync::Semaphore,
    time::Instant,
};

/// Bytes of the headers of a request, at most; and their number.
const MAX_HEADER_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// Pause after a connection could not be accepted, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Interval of checks whether all requests are answered.
const IDLE_PAUSE: Duration = Duration::from_millis(20);

/// Answers requests until SIGTERM or SIGINT, and then, within `drain_seconds`, those that were accepted before. After
/// SIGTERM connections are accepted for as long as that takes, and for `notice_seconds` at least: `/ready` and what is
/// new get 503. A further signal ends it at once.
pub(crate) async fn serve(listener: TcpListener, router: Router, state: &Shared) -> Result<()> {
    let server = Server::new(listener, router, state);
    let mut signals = Signals::new()?;
    let must_notify = server.accept_until(signals.next()).await;
    state.draining.store(true, Ordering::Relaxed);
    let drain = Duration::from_secs(state.limits.drain_seconds);
    tracing::info!("stopping: requests that are being worked on are answered within {} s", drain.as_secs());
    let deadline = Instant::now() + drain;
    let drained = async {
        if must_notify {
            let notice = Duration::from_secs(state.limits.notice_seconds);
            server.accept_until(until_idle(state, notice)).await;
        }
        server.close().await;
    };
    tokio::select! {
        drained = tokio::time::timeout_at(deadline, drained) => if drained.is_err() {
            tracing::warn!("requests were still worked on after {} s and are given up", drain.as_secs());
        },
        _ = signals.next() => tracing::warn!("a further signal: requests that are worked on are given up"),
    }
    state.has_stopped.store(true, Ordering::Relaxed);
    Ok(())
}

/// Waits for a time, and then until all requests are answered.
async fn until_idle(state: &Shared, time: Duration) {
    tokio::time::sleep(time).await;
    while !state.is_idle() {
        tokio::time::sleep(IDLE_PAUSE).await;
    }
}

/// The signals that ask a server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one; returns whether it is SIGTERM, which a service manager sends, and not Ctrl-C.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => false,
        }
    }
}

/// A listener with its open connections.
struct Server {
    listener: TcpListener,
    router: Router,
    connections: Builder,
    graceful: GracefulShutdown,
    slots: Arc<Semaphore>,
    /// For how long a client may take nothing of its answer.
    write_time: Duration,
}

impl Server {
    fn new(listener: TcpListener, router: Router, state: &Shared) -> Self {
        let mut connections = Builder::new();
        connections
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(state.limits.read_seconds.max(1)))
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS);
        let slots = Arc::new(Semaphore::new(state.limits.max_connections));
        let write_time = Duration::from_secs(state.limits.write_seconds.max(1));
        Self { listener, router, connections, graceful: GracefulShutdown::new(), slots, write_time }
    }

    /// Accepts connections until `stop` is done, and returns what that gives.
    async fn accept_until<T>(&self, stop: impl Future<Output = T>) -> T {
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = async {
                let slot = self.slots.clone().acquire_owned().await;
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                accepted = accepted => accepted,
                stopped = &mut stop => return stopped,
            };
            match accepted {
                Ok((stream, _)) => self.spawn(stream, slot),
                Err(error) => {
                    tracing::warn!("a connection was not accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Answers the requests of a connection, which has `slot` until its end.
    fn spawn<T: Send + 'static>(&self, stream: TcpStream, slot: T) {
        // Small answers are not held back to be joined with later ones.
        let _ = stream.set_nodelay(true);
        limit_stalls(&stream, self.write_time);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self.graceful.watch(self.connections.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended: {error}");
            }
            drop(slot);
        });
    }

    /// Accepts no further connection, and waits until the open ones have their answers.
    async fn close(self) {
        drop(self.listener);
        self.graceful.shutdown().await;
    }
}

/// Has the system close a connection whose client acknowledges nothing of what is sent, or has no room for it, for a
/// time; other systems than Linux have no such limit.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
fn limit_stalls(stream: &TcpStream, time: Duration) {
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(time)) {
        tracing::debug!("a connection has no limit on stalled writes: {error}");
    }
}
