-- Removes a session, or those that a gateway left behind, and notes when the user was last seen.
-- KEYS: meta, entries, sessions, devices
-- ARGV: run, session or '', gateway whose sessions go if there is no session
-- Returns: sessions that were removed, sessions that are left, now in ms, the last change's place among those of the user's presence; then, if there is an inbox: epoch, head, and the
-- cursor up to which nothing is missing on every device together since the sessions removed began.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local removed, begun = 0, nil
local function remove(session, value)
    local head = tonumber(string.match(value, '^%S+ %S+ (%d+)$') or '0')
    if not begun or head < begun then
        begun = head
    end
    removed = removed + redis.call('HDEL', KEYS[3], session)
end
if ARGV[2] ~= '' then
    local value = redis.call('HGET', KEYS[3], ARGV[2])
    if value then
        remove(ARGV[2], value)
    end
else
    local sessions = redis.call('HGETALL', KEYS[3])
    for i = 1, #sessions, 2 do
        if string.match(sessions[i + 1], '^%S+') == ARGV[3] then
            remove(sessions[i], sessions[i + 1])
        end
    end
end
local left = redis.call('HLEN', KEYS[3])
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'run', 'head', 'presence_at')
local at = tonumber(meta[4]) or now
if removed > 0 then
    at = math.max(now, (tonumber(meta[4]) or 0) + 1)
    if redis.call('EXISTS', KEYS[1]) == 1 then
        redis.call('HSET', KEYS[1], 'presence_at', at)
    end
end
if meta[2] and meta[2] ~= ARGV[1] then
    -- Sessions of another run count no more.
    redis.call('HDEL', KEYS[1], 'epoch', 'devices')
    return { removed, 0, now, at }
end
local epoch = meta[1]
if not epoch then
    return { removed, left, now, at }
end
if removed > 0 and left == 0 then
    redis.call('HSET', KEYS[1], 'last_seen', now)
end
local confirmed = begun or 0
for _, cursor in ipairs(redis.call('HVALS', KEYS[4])) do
    confirmed = math.max(confirmed, tonumber(cursor))
end
return { removed, left, now, at, epoch, meta[3], tostring(confirmed) }
