//! [`Timestamp`] as PostgreSQL's `timestamptz`: both are microseconds, from another epoch.

use knarr_core::time::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef, Postgres};
use sqlx::{Decode, Encode, Type};

/// 2000-01-01, from where PostgreSQL counts.
const EPOCH_US: i64 = 946_684_800_000_000;

/// A [`Timestamp`] on its way to or from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At(pub(super) Timestamp);

impl Type<Postgres> for At {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for At {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for At {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        // The two ends of the range mean infinity there; what lies outside is refused by the server as out of range.
        let micros = self.0.0.checked_sub(EPOCH_US).filter(|micros| *micros != i64::MIN);
        buffer.extend(&micros.unwrap_or(i64::MIN + 1).to_be_bytes());
        Ok(IsNull::No)
    }

    fn size_hint(&self) -> usize {
        size_of::<i64>()
    }
}

impl Decode<'_, Postgres> for At {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Err("a timestamp came as text".into());
        }
        let bytes: [u8; 8] = value.as_bytes()?.try_into()?;
        Ok(Self(Timestamp(i64::from_be_bytes(bytes).saturating_add(EPOCH_US))))
    }
}
