-- The Lua script that bin/bench compares: the source is looked up in Kamailio's hash table.

function ksr_request_route()
	if KSR.htable.sht_get("apiban", KSR.pv.get("$si")) ~= nil then
		KSR.htable.sht_inc("apibanctl", "blocks")
		return 1
	end
	KSR.sl.sl_send_reply(200, "OK")
	return 1
end
