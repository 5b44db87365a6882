-- Statistics hold samples of a column: the wrapped keys themselves, also those that have been destroyed since. No statement
-- needs any of this column. Setting the type, which it has already, removes those that are there.
alter table content_keys alter column wrapped type bytea, alter column wrapped set statistics 0;
