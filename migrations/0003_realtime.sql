-- How far participants have read, whom they don't want to be notified by, and where notifications go.

alter table participants
    add column last_read_message_id uuid,
    -- 'infinity' is for good.
    add column muted_until timestamptz;

-- The address is sealed; its fingerprint, made with a secret key, finds a token that moves to another user or device.
create table notification_devices (
    user_id uuid not null,
    device_id uuid not null,
    platform text not null check (platform in ('fcm', 'apns', 'web_push', 'webhook')),
    app_id text not null,
    locale text,
    address bytea not null,
    fingerprint bytea not null,
    registered_at timestamptz not null,
    primary key (user_id, device_id),
    constraint notification_devices_address unique (fingerprint)
);
