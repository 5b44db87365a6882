//! Routes of devices that are registered for notifications.

use axum::{Json, extract::State, http::StatusCode};
use chat_shared::{
    ids::DeviceId,
    wire::{Device, DeviceList, RegisterDevice},
};

use super::{
    extract::{Body, InPath},
    refusals::{AnyRefusal, BodyRefusal},
};
use crate::{auth::Identity, refusal::Refusal, state::AppState};

/// Register a device for notifications
///
/// With the `device_id` that it says hello with. Repeat it whenever its platform gives it another token or subscription,
/// and after another user has logged in there: a token belongs to whoever registered it last. A user has 20 devices at
/// the most; one more takes the place of the one that was registered first. The token is never shown again.
#[utoipa::path(
    put,
    path = "/v1/devices/{device_id}",
    operation_id = "register_device",
    tag = "devices",
    security(("bearer" = [])),
    params(("device_id" = DeviceId, Path, description = "Which of your devices")),
    request_body = RegisterDevice,
    responses((status = 200, description = "It is registered", body = Device), AnyRefusal, BodyRefusal)
)]
pub async fn register(
    identity: Identity,
    State(state): State<AppState>,
    InPath(device_id): InPath<DeviceId>,
    Body(request): Body<RegisterDevice>,
) -> Result<Json<Device>, Refusal> {
    Ok(Json(state.devices.register(identity.user_id, device_id, request).await?))
}

/// List your devices that are registered for notifications
#[utoipa::path(
    get,
    path = "/v1/devices",
    operation_id = "list_devices",
    tag = "devices",
    security(("bearer" = [])),
    responses((status = 200, description = "The devices", body = DeviceList), AnyRefusal)
)]
pub async fn list(identity: Identity, State(state): State<AppState>) -> Result<Json<DeviceList>, Refusal> {
    Ok(Json(state.devices.list(identity.user_id).await?))
}

/// Remove a device
///
/// Before the user logs out there, or it is notified of their messages still. Also if it isn't registered.
#[utoipa::path(
    delete,
    path = "/v1/devices/{device_id}",
    operation_id = "remove_device",
    tag = "devices",
    security(("bearer" = [])),
    params(("device_id" = DeviceId, Path, description = "Which of your devices")),
    responses((status = 204, description = "It is not registered"), AnyRefusal)
)]
pub async fn remove(
    identity: Identity,
    State(state): State<AppState>,
    InPath(device_id): InPath<DeviceId>,
) -> Result<StatusCode, Refusal> {
    state.devices.remove(identity.user_id, device_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
