-- Tables of orders: inserts with and without an index, joins, groups, updates, deletes. @SCALE@ divides the rows.
pragma synchronous = off;
create table customer(id integer primary key, name text, city text);
create table purchase(id integer primary key, customer integer, amount real, note text);
begin;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000 / @SCALE@)
  insert into customer select i, 'name ' || (i * 7919 % 10007) || hex(i * i), 'city ' || (i % 211) from n;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 120000 / @SCALE@)
  insert into purchase select i, 1 + (i * 48271) % (20000 / @SCALE@), (i * 31 % 9973) / 7.0,
    substr('a note of some length that differs from row to row ' || i, 1, 10 + i % 50) from n;
commit;
create index purchase_customer on purchase(customer);
create index customer_city on customer(city, name);
select city, count(*), round(sum(amount), 2) from customer join purchase on purchase.customer = customer.id
  group by city order by 3 desc limit 20;
select count(*), max(length(notes)) from (select group_concat(note, ';') as notes from purchase group by customer);
select name, total from (select customer, sum(amount) as total from purchase group by customer) as t
  join customer on customer.id = t.customer order by total desc, name limit 30;
begin;
update purchase set note = upper(note) || customer where id % 3 = 0;
delete from purchase where id % 7 = 0;
insert into purchase(customer, amount, note) select customer, amount * 2, note || '!' from purchase where id % 5 = 0;
commit;
select count(distinct note), round(avg(amount), 3) from purchase;
select substr(note, 1, 12) as head, count(*) from purchase group by head order by 2 desc, 1 limit 15;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 1500 / @SCALE@)
  select sum(length(j)) from (select json_group_array(json_object('i', i, 'name', printf('%08d', i * i))) as j from n);
