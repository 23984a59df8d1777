-- What is not as it should be, seen by the role that asks: one line each, with its kind.

-- What the daemon needs and this role lacks.
select 'missing' as kind, format('%s%s on %s.%s', privilege, ' (' || lacking.columns || ')', schema, name) as what
from (:daemon) as wanted
left join (:relations) as relation using (schema, name)
cross join lateral (
    select string_agg(column_name, ', ') as columns
    from unnest(wanted.columns) as column_name
    where not coalesce(has_column_privilege(relation.oid, column_name, privilege), false)
) as lacking
where case
    when wanted.columns is null then not coalesce(has_table_privilege(relation.oid, privilege), false)
    else lacking.columns is not null
end

union all

-- What this role may write and the daemon never needs: whole rows,
select 'excess', format('%s on %s.%s', privilege, schema, name)
from (:relations) as relation
cross join unnest(array['DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES']) as privilege
where has_table_privilege(relation.oid, privilege)

union all

-- and columns.
select 'excess', format('%s (%s) on %s.%s', asked.privilege, string_agg(attname, ', ' order by attnum), schema, name)
from (:relations) as relation
join pg_attribute on attrelid = relation.oid and attnum > 0 and not attisdropped
cross join unnest(array['INSERT', 'UPDATE']) as asked (privilege)
where has_column_privilege(relation.oid, attnum, asked.privilege)
    and not exists (
        select
        from (:daemon) as wanted
        where (wanted.schema, wanted.name, wanted.privilege) = (relation.schema, relation.name, asked.privilege)
            and (wanted.columns is null or attname = any (wanted.columns))
    )
group by schema, name, asked.privilege

union all

-- No grant binds an owner, nor its members.
select 'owner', string_agg(format('%s.%s', schema, name), ', ' order by schema, name)
from (:relations) as relation
where pg_has_role(relowner, 'usage')
having count(*) > 0

union all

-- What anybody else may change. Who may enter leaves is a daemon, and its INSERTs are its own affair; what the document
-- tool_usage_ledger says of its table's roles is theirs.
select 'stranger', format('%s may %s on %s.%s', grantee, string_agg(privilege, ', ' order by privilege), schema, name)
from (:relations) as relation
join pg_class on pg_class.oid = relation.oid
cross join lateral (
    select
        case acl.grantee when 0 then 'PUBLIC' else acl.grantee::regrole::text end as grantee,
        acl.privilege_type as privilege
    from aclexplode(pg_class.relacl) as acl
    where acl.grantee not in (relation.relowner, current_user::regrole)
        and acl.privilege_type <> 'SELECT'
        and not (acl.privilege_type = 'INSERT' and has_table_privilege(acl.grantee, 'ledger.batch', 'INSERT'))
) as others
where (schema, name) <> ('public', 'tool_usage_ledger')
group by grantee, schema, name

union all

-- A statement that no trigger refuses: absent, disabled (an ordinary one sleeps where session_replication_role is
-- `replica`), bound to a condition or to a column, or calling something else than ours.
select 'unrefused', format('%s on %s.%s', statement, schema, name)
from (:relations) as relation
cross join (values ('UPDATE', 16 | 3), ('DELETE', 8 | 3), ('TRUNCATE', 32 | 2)) as wanted (statement, bits)
where relkind in ('r', 'p')
    -- Where migrations are noted, by a program that others wrote; and what is no evidence.
    and (schema, name) not in (
        ('ledger', 'migration'),
        ('ledger', 'refusal'),
        ('ledger', 'notify_target'),
        ('ledger', 'notify_position'),
        ('ledger', 'notification')
    )
    and not exists (
        select
        from pg_trigger
        join pg_proc on pg_proc.oid = tgfoid
        where tgrelid = relation.oid
            and tgtype & bits = bits
            and tgenabled = 'A'
            and tgqual is null
            and tgattr = ''::int2vector
            and pronamespace = to_regnamespace('ledger')
    )

union all

-- What answers in a table's place, or adds rows to it.
select 'altered', format('the rule %s on %s.%s', rulename, schema, name)
from (:relations) as relation
join pg_rewrite on ev_class = relation.oid
where relkind in ('r', 'p')

union all

select 'altered', format('%s, a child of %s.%s', inhrelid::regclass, schema, name)
from (:relations) as relation
join pg_inherits on inhparent = relation.oid
where relkind = 'r'
