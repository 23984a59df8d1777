-- Where the database gives each new table to everybody (Supabase: `alter default privileges … grant all on tables to anon`),
-- ours were given away at birth. Who shall read becomes a member of ledgerd_reader. tool_usage_ledger is not concerned:
-- its document says who may what, and the chairman's door asks who it is.
do $$
declare
    relation text;
    stranger text;
begin
    for relation, stranger in
        select format('%I.%I', schema, name), coalesce(quote_ident(rolname), 'public')
        from (:relations) as relation
        join pg_class on pg_class.oid = relation.oid
        cross join lateral aclexplode(relacl) as privilege
        left join pg_roles as role on role.oid = grantee
        where (schema, name) not in (('public', 'tool_usage_ledger'), ('ledger', 'tool_usage_for_chairman'))
            and (grantee = 0 or rolname in ('anon', 'authenticated', 'service_role'))
            and pg_has_role(relation.relowner, 'usage')
        group by 1, 2
    loop
        execute format('revoke all on %s from %s', relation, stranger);
    end loop;
end
$$;
