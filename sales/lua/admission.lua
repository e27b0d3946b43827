-- admission.lua: whether the gate asks for admissions, from now on. A gate that is not there stays so.
--
-- KEYS[1] gate
-- ARGV[1] "1" it asks, "0" everybody may come
--
-- Reply: changed | same | gone

local asked = redis.call('HGET', KEYS[1], 'admission_required')
if not asked then return 'gone' end
if asked == ARGV[1] then return 'same' end
redis.call('HSET', KEYS[1], 'admission_required', ARGV[1])
return 'changed'
