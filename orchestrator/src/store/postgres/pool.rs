//! A few connections for reading, each given back whole or not at all.
//!
//! **Invariant:** a use that failed, was cancelled or ran into its time limit drops its connection: the server at its other
//! end may be gone without a word. sqlx's own pool asks a connection that is given back whether it is well, and where no
//! answer comes its place is lost; here nothing is asked but of what has lain idle, and not for long.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::to_store_error;
use super::within;
use crate::store::StoreError;

/// A connection that has just been used is not asked whether it is well.
const FRESH: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// What a backend has cached is given up now and then.
const LIFETIME: Duration = Duration::from_secs(1_800);

/// Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    options: Arc<PgConnectOptions>,
    timeout: Duration,
    places: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    opened: Instant,
    used: Instant,
}

impl Pool {
    /// `timeout` is for a free place and for a new connection, each.
    pub(super) fn new(size: u32, options: PgConnectOptions, timeout: Duration) -> Self {
        Self {
            options: Arc::new(options),
            timeout,
            places: Arc::new(Semaphore::new(size.max(1) as usize)),
            idle: Arc::default(),
        }
    }

    pub(super) async fn take(&self) -> Result<Taken, StoreError> {
        let unavailable = |why: &str| StoreError::Unavailable(why.to_owned());
        let place = tokio::time::timeout(self.timeout, Arc::clone(&self.places).acquire_owned())
            .await
            .map_err(|_| unavailable("all connections are in use"))?
            .map_err(|_| unavailable("the connections are closed"))?;
        let (connection, opened) = self.connection().await?;
        Ok(Taken {
            connection,
            opened,
            idle: Arc::clone(&self.idle),
            _place: place,
        })
    }

    async fn connection(&self) -> Result<(PgConnection, Instant), StoreError> {
        loop {
            // The newest first, so that what is not needed grows old.
            let last = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut last) = last else { break };
            if last.used.elapsed() <= FRESH
                || matches!(
                    tokio::time::timeout(PING_TIMEOUT, last.connection.ping()).await,
                    Ok(Ok(()))
                )
            {
                return Ok((last.connection, last.opened));
            }
            // Where one is gone all are likely to be.
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        let connected = async {
            let connected = PgConnection::connect_with(&self.options).await;
            connected.map_err(to_store_error)
        };
        Ok((within(self.timeout, connected).await?, Instant::now()))
    }
}

/// A connection in use; one that is not [put back](Taken::put_back) is closed.
#[derive(Debug)]
pub(super) struct Taken {
    connection: PgConnection,
    opened: Instant,
    idle: Arc<Mutex<Vec<Idle>>>,
    _place: OwnedSemaphorePermit,
}

impl Taken {
    pub(super) fn put_back(self) {
        if self.opened.elapsed() > LIFETIME {
            return;
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(Idle {
            connection: self.connection,
            opened: self.opened,
            used: Instant::now(),
        });
    }
}

impl Deref for Taken {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
