/* Filters and sorts the table of a block of class "compare"; data-choose names the columns that get a list to choose
   from. Without this script the table is there as a whole. */
document.querySelectorAll(".compare").forEach((block) => {
  const table = block.querySelector("table");
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  const text = (row, column) => row.cells[column].textContent.trim();
  const controls = document.createElement("p");
  const tests = [];

  function show() {
    rows.forEach((row) => (row.hidden = !tests.every((test) => test(row))));
  }

  function add(label, control, test) {
    const name = document.createElement("label");
    name.append(`${label} `, control);
    controls.append(name);
    tests.push(test);
    control.addEventListener("input", show);
  }

  const search = document.createElement("input");
  search.type = "search";
  add("Search", search, (row) => row.textContent.toLowerCase().includes(search.value.toLowerCase()));

  block.dataset.choose.split("|").forEach((title) => {
    const column = heads.findIndex((head) => head.textContent.trim() === title);
    const list = document.createElement("select");
    list.append(new Option("all", ""));
    [...new Set(rows.map((row) => text(row, column)))].sort().forEach((value) => list.append(new Option(value)));
    add(title[0].toUpperCase() + title.slice(1), list, (row) => !list.value || text(row, column) === list.value);
  });
  table.before(controls);

  function compare(a, b, column, sign) {
    const [left, right] = [text(a, column), text(b, column)];
    const [x, y] = [left, right].map((value) => parseFloat(value.replaceAll(",", "")));
    if (isNaN(x) && isNaN(y)) return sign * left.localeCompare(right);
    return isNaN(x) - isNaN(y) || sign * (x - y); // what is no number comes last
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.ariaSort !== "ascending";
      heads.forEach((other) => (other.ariaSort = null));
      head.ariaSort = up ? "ascending" : "descending";
      rows.sort((a, b) => compare(a, b, column, up ? 1 : -1));
      table.tBodies[0].append(...rows);
    });
  });
});
