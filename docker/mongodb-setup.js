// Makes the replica set, an administrator and the facade's user, whichever of them is not there yet. Runs in mongosh, in
// the network of the database's container: until there is a user, MongoDB obeys its own loopback.
const fs = require("fs");
const secret = (name) => fs.readFileSync(`/run/secrets/${name}`, "utf8").trim();
const attempt = (work) => { try { return work(); } catch (error) { return error; } };

let admin = connect("mongodb://127.0.0.1:27017/admin");
const login = () => attempt(() => admin.auth("admin", secret("mongodb-admin.password"))).ok === 1;

if (!login()) {
  attempt(() => admin.adminCommand({ replSetInitiate: { _id: "rs0", members: [{ _id: 0, host: "mongodb:27017" }] } }));
  for (let waited = 0; !admin.hello().isWritablePrimary; waited += 1) {
    if (waited === 60) { print("the replica set has no primary"); quit(1); }
    sleep(1000);
  }
  admin.createUser({ user: "admin", pwd: secret("mongodb-admin.password"), roles: ["userAdminAnyDatabase"] });
  if (!login()) { print("the administrator can not log in"); quit(1); }
}
if (admin.getUser("facade") === null) {
  admin.createUser({
    user: "facade",
    pwd: secret("mongodb-facade.password"),
    roles: [{ role: "readWrite", db: "access_facade" }],
  });
}
