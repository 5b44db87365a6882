-- Sets what a device has confirmed; the one furthest behind makes room for a new one. KEYS[4] are the devices.
local function enter(device, cursor, devices_max)
    if redis.call('HEXISTS', KEYS[4], device) == 0 and redis.call('HLEN', KEYS[4]) >= devices_max then
        local devices = redis.call('HGETALL', KEYS[4])
        local last, least = nil, nil
        for i = 1, #devices, 2 do
            if not least or tonumber(devices[i + 1]) < least then
                last, least = devices[i], tonumber(devices[i + 1])
            end
        end
        redis.call('HDEL', KEYS[4], last)
    end
    redis.call('HSET', KEYS[4], device, cursor)
end
